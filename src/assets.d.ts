/**
 * Files that are imported by path: the bundler puts them into the executable.
 *
 * @module
 */

declare module "*.gguf" {
  const path: string
  export default path
}
