// Streams over parts of files, see view.cpp.
#pragma once

#include "internal.hpp"

#include <cstdio>

namespace cria {

// A stream that reads `header`, then what `config` says: {"bytes": int (of the whole), "ranges": [{"path": string,
// "from": int (in that file), "at": int (in the stream), "bytes": int}], in order}. Close it with fclose().
std::FILE * open_view(const common_json & config, std::string header);

}  // namespace cria
