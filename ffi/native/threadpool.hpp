// Threads that compute, for libraries without OpenMP.
#pragma once

#include <cstring>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama.h"

namespace cria {

// ggml's own pool, for builds without OpenMP: otherwise every graph starts and joins its threads anew.
class Threadpool {
  public:
    ~Threadpool() {
        if (pool_ != nullptr) free_(pool_);
    }

    void attach(llama_context * ctx, int threads, bool & openmp) {
        ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
        openmp = has_feature(reg, "OPENMP");
        if (openmp) return;
        const auto create = reinterpret_cast<decltype(&ggml_threadpool_new)>(
            ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new"));
        free_ = reinterpret_cast<decltype(&ggml_threadpool_free)>(
            ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free"));
        if (create == nullptr || free_ == nullptr) return;
        ggml_threadpool_params params;
        ggml_threadpool_params_init(&params, threads);
        pool_ = create(&params);
        if (pool_ != nullptr) llama_attach_threadpool(ctx, pool_, pool_);
    }

  private:
    static bool has_feature(ggml_backend_reg_t reg, const char * name) {
        const auto features = reinterpret_cast<ggml_backend_get_features_t>(
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
        if (features == nullptr) return false;
        for (const ggml_backend_feature * f = features(reg); f->name != nullptr; f++) {
            if (std::strcmp(f->name, name) == 0) return true;
        }
        return false;
    }

    ggml_threadpool_t pool_ = nullptr;
    decltype(&ggml_threadpool_free) free_ = nullptr;
};

}  // namespace cria
