// What a context is made with: JSON to llama.cpp's parameters.
#include "context.hpp"

#include <limits>

namespace cria {

namespace {

ggml_type cache_type(const std::string & name) {
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                           GGML_TYPE_IQ4_NL, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1}) {
        if (name == ggml_type_name(type)) return type;
    }
    fail_argument("cache type is \"" + name + "\", expected f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl");
}

llama_flash_attn_type flash_attention(const std::string & name) {
    if (name == "auto") return LLAMA_FLASH_ATTN_TYPE_AUTO;
    if (name == "on") return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    if (name == "off") return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    fail_argument("flash_attention is \"" + name + "\", expected auto, on or off");
}

enum llama_pooling_type pooling(const std::string & name) {
    if (name == "model") return LLAMA_POOLING_TYPE_UNSPECIFIED;
    if (name == "none") return LLAMA_POOLING_TYPE_NONE;
    if (name == "mean") return LLAMA_POOLING_TYPE_MEAN;
    if (name == "cls") return LLAMA_POOLING_TYPE_CLS;
    if (name == "last") return LLAMA_POOLING_TYPE_LAST;
    fail_argument("pooling is \"" + name + "\", expected model, none, mean, cls or last");
}

}  // namespace

uint32_t positive(const common_json & config, const char * key, int64_t max) {
    const int64_t value = config.at(key).get<long>();
    if (value < 1 || value > max) {
        fail_argument(std::string(key) + " is " + std::to_string(value) + ", expected 1 to " + std::to_string(max));
    }
    return static_cast<uint32_t>(value);
}

llama_context_params context_params(const common_json & config) {
    llama_context_params p = llama_context_default_params();
    p.n_ctx = positive(config, "cells", std::numeric_limits<int32_t>::max() / 2);
    // One llama_decode is one graph run: a step's latency is one scheduling decision.
    p.n_batch = positive(config, "batch", 1 << 16);
    p.n_ubatch = p.n_batch;
    p.embeddings = config.value<bool>("embeddings", false);
    p.n_seq_max = positive(config, "sequences", static_cast<int64_t>(llama_max_parallel_sequences()));
    // llama.cpp asserts both while it makes a context: it reserves a row for each sequence, and common tries out with
    // two tokens what a memory can do.
    if (p.n_batch < p.n_seq_max) {
        fail_argument("batch is " + std::to_string(p.n_batch) + ", expected at least one token a sequence, " +
                      std::to_string(p.n_seq_max));
    }
    if (p.n_batch < 2) fail_argument("batch is " + std::to_string(p.n_batch) + ", expected at least 2");
    p.n_outputs_max = p.embeddings ? p.n_batch : p.n_seq_max;
    p.n_threads = static_cast<int32_t>(positive(config, "threads", 512));
    p.n_threads_batch = static_cast<int32_t>(positive(config, "threads_batch", 512));
    p.flash_attn_type = flash_attention(config.value("flash_attention", "auto"));
    p.type_k = cache_type(config.value("type_k", "f16"));
    p.type_v = cache_type(config.value("type_v", "f16"));
    p.pooling_type = pooling(config.value("pooling", "model"));
    p.offload_kqv = config.value<bool>("offload_kv", true);
    p.swa_full = config.value<bool>("swa_full", true);
    p.kv_unified = true;
    return p;
}

}  // namespace cria
