// Threads that compute, for libraries without OpenMP.
#pragma once

#include <ctime>

#include <algorithm>
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
        // Between graphs threads sleep. Those that look out for the next one use up the time that they are given, and
        // have none left when it comes: measured half of the speed and less beside busy programs, and no gain without.
        params.poll = 0;
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

// How many of its threads a pool uses.
//
// Within a graph ggml's own threads spin until the last one is there, some hundred times per token. While another
// program has that one's core, all others spin for nothing, and a step takes ten times as long. A thread that did not
// get its core all the time of a step tells: then half of the threads are faster. Later one more is tried at a time.
class ThreadCount {
  public:
    explicit ThreadCount(int32_t most) : most_(most), count_(most) {}

    int32_t count() const { return count_; }

    // A step took so long, of which the thread that calls this was running for a part.
    void observe(int64_t now_us, int64_t wall_us, int64_t running_us) {
        if (wall_us <= 0) return;
        const double part = static_cast<double>(running_us) / static_cast<double>(wall_us);
        running_ += (part - running_) / SMOOTHING;
        if (running_ < CROWDED) {
            if (count_ > 1) running_ = 1.0;
            count_ = std::max(1, count_ / 2);
            retry_us_ = now_us + wall_us * PATIENCE;
        } else if (count_ < most_ && now_us >= retry_us_) {
            count_++;
        }
    }

    // Time that this thread was running; without such a clock, all the time.
    static int64_t running_us(int64_t wall_us) {
#if defined(CLOCK_THREAD_CPUTIME_ID)
        timespec time;
        if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0) {
            return static_cast<int64_t>(time.tv_sec) * 1000000 + time.tv_nsec / 1000;
        }
#endif
        return wall_us;
    }

  private:
    // Beside one busy program per core a thread runs half of the time; alone nearly all of it.
    static constexpr double CROWDED = 0.7;
    // A single step may be interrupted.
    static constexpr double SMOOTHING = 2.0;
    // A step with too many threads costs at most this part of the time until the next.
    static constexpr int64_t PATIENCE = 16;

    int32_t most_;
    int32_t count_;
    double running_ = 1.0;
    int64_t retry_us_ = 0;
};

}  // namespace cria
