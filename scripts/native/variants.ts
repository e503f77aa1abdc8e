/**
 * The builds of the native libraries that exist, as a table.
 *
 * Every variant is a complete folder: ggml, its backends, llama, common and our shim.
 *
 * @module
 */

import type { Requirement } from "./toolchain.ts"

/** One kind of build. */
export interface Variant {
  readonly about: string
  readonly platforms: readonly NodeJS.Platform[]
  readonly flags: readonly string[]
  readonly needs: readonly Requirement[]
}

/** What all variants share. */
export const COMMON_FLAGS: readonly string[] = [
  "-DCMAKE_BUILD_TYPE=Release",
  // libllama.so instead of libllama.so.0.5.0 and two links to it.
  "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",
  "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
  `-DCMAKE_INSTALL_RPATH=${process.platform === "darwin" ? "@loader_path" : "$ORIGIN"}`,
  "-DBUILD_SHARED_LIBS=ON",
  "-DLLAMA_BUILD_COMMON=ON",
  // Without: libssl and libcrypto would have to be on every machine.
  "-DLLAMA_OPENSSL=OFF",
  "-DLLAMA_SUBPROCESS=OFF",
  "-DLLAMA_BUILD_IS_DEV=OFF",
  "-DLLAMA_BUILD_TESTS=OFF",
  "-DLLAMA_BUILD_EXAMPLES=OFF",
  "-DLLAMA_BUILD_APP=OFF",
  "-DLLAMA_USE_PREBUILT_UI=OFF",
  // Linux: OpenMP can be told to spin only briefly, which keeps busy machines usable; see docs/design/native.md.
  `-DGGML_OPENMP=${process.platform === "linux" ? "ON" : "OFF"}`,
]

/** All CPU levels as modules, the best of which is chosen at run time. */
const ANY_CPU: readonly string[] = [
  "-DGGML_NATIVE=OFF",
  "-DGGML_BACKEND_DL=ON",
  "-DGGML_CPU_ALL_VARIANTS=ON",
]

const CUDA_HOME = process.env["CUDA_HOME"] ?? "/usr/local/cuda"

/** By name, as `build-native` takes it. */
export const VARIANTS: Readonly<Record<string, Variant>> = {
  cpu: {
    about: "every CPU of this architecture",
    platforms: ["linux", "darwin"],
    flags: [...ANY_CPU, "-DGGML_METAL=OFF"],
    needs: [],
  },
  "cpu-native": {
    about: "this machine's CPU only: the fastest to build",
    platforms: ["linux", "darwin"],
    flags: ["-DGGML_NATIVE=ON", "-DGGML_METAL=OFF"],
    needs: [],
  },
  cuda: {
    about: "NVIDIA GPUs, and every CPU",
    platforms: ["linux"],
    flags: [
      ...ANY_CPU,
      "-DGGML_CUDA=ON",
      "-DGGML_CUDA_NCCL=OFF",
      // Turing to Blackwell; machine code for the common ones, so that no first run compiles for minutes.
      "-DCMAKE_CUDA_ARCHITECTURES=75-virtual;80-real;86-real;89-real;90-real;120a-real",
    ],
    needs: [
      {
        what: "the CUDA compiler nvcc",
        programs: ["nvcc", `${CUDA_HOME}/bin/nvcc`],
        debian: "nvidia-cuda-toolkit",
        mac: "(not available on macOS)",
      },
      {
        what: "the cuBLAS headers",
        files: [
          `${CUDA_HOME}/include/cublas_v2.h`,
          `${CUDA_HOME}/targets/x86_64-linux/include/cublas_v2.h`,
          "/usr/include/cublas_v2.h",
        ],
        debian: "libcublas-dev",
        mac: "(not available on macOS)",
      },
    ],
  },
  metal: {
    about: "Apple GPUs",
    platforms: ["darwin"],
    flags: [
      ...ANY_CPU,
      "-DGGML_METAL=ON",
      "-DGGML_METAL_EMBED_LIBRARY=ON",
      "-DCMAKE_OSX_DEPLOYMENT_TARGET=13.3",
    ],
    needs: [],
  },
  vulkan: {
    about: "GPUs of any maker through Vulkan, and every CPU",
    platforms: ["linux"],
    flags: [...ANY_CPU, "-DGGML_VULKAN=ON"],
    needs: [
      {
        what: "the shader compiler glslc",
        programs: ["glslc"],
        debian: "glslc",
        mac: "brew install shaderc",
      },
      {
        what: "the Vulkan headers",
        files: ["/usr/include/vulkan/vulkan.h"],
        debian: "libvulkan-dev",
        mac: "brew install vulkan-headers",
      },
      {
        what: "the SPIR-V headers",
        files: ["/usr/include/spirv/unified1/spirv.hpp"],
        debian: "spirv-headers",
        mac: "brew install spirv-headers",
      },
    ],
  },
}
