// A context: KV cells, the step block, and the one thread that computes.
//
// That thread creates the llama_context, runs every step and frees it: OpenMP keeps a team of workers per calling
// thread, so compute must never hop between threads.
#pragma once

#include "internal.hpp"

#include "sequences.hpp"
#include "spinning.hpp"
#include "step-block.hpp"
#include "threadpool.hpp"
#include "workers.hpp"

namespace cria {

// The parameters that a configuration asks for; cria.h has its fields.
llama_context_params context_params(const common_json & config);
// An integer of a configuration, from 1 to max.
uint32_t positive(const common_json & config, const char * key, int64_t max);

class Context {
  public:
    Context(std::shared_ptr<Model> model, const common_json & config);
    ~Context();

    uint64_t block_address() const { return block_.address(); }

    void submit(int32_t tokens, int32_t rows);
    // False when the time passed and the step still runs.
    bool wait(int32_t timeout_us);
    void cancel() { abort_ = true; }

    // Runs a short call from the caller's thread; legal only between steps.
    template <typename F> auto between_steps(F && body) -> decltype(body()) {
        std::lock_guard<std::mutex> lock(mutex_);
        require_idle();
        return body();
    }

    // What follows is for between_steps() only.
    Sequences & sequences() { return *sequences_; }
    common_json info() const;
    // Copies a vector of the last step when there is room for it; its width.
    int32_t embedding(int32_t sequence, float * out, int32_t capacity) const;

  private:
    enum class State { STARTING, FAILED, IDLE, BUSY, DONE };

    std::shared_ptr<Model> model_;
    llama_context_params params_;
    int32_t top_;
    int32_t pins_;
    bool adapts_threads_;
    llama_context * ctx_ = nullptr;
    std::unique_ptr<Sequences> sequences_;
    Threadpool threadpool_;
    bool openmp_ = false;
    std::unique_ptr<Spinning> spinning_;         // with OpenMP
    std::unique_ptr<ThreadCount> thread_count_;  // where threads spin, and nobody but them computes

    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<State> state_{State::STARTING};
    bool stop_ = false;
    std::atomic<bool> abort_{false};
    std::string error_;
    std::thread thread_;

    StepBlock block_;
    int32_t n_tokens_ = 0;
    int32_t n_rows_ = 0;
    std::vector<std::shared_ptr<Sampler>> samplers_;  // of the step in flight, so that freeing one is safe
    std::vector<int8_t> wanted_;
    std::unique_ptr<Workers> workers_;
    std::vector<float *> logits_;  // of the rows of the step in flight

    void require_idle() const;
    void validate(int32_t n_tokens, int32_t n_rows);
    void validate_tokens(int32_t n_tokens);
    void take_samplers(int32_t n_tokens, int32_t n_rows);

    // The engine thread.
    void run();
    std::string start() noexcept;
    void look_out();
    std::string step() noexcept;
    int32_t decode();
    int32_t compute(const llama_batch & batch);
    int32_t sample();
    void sample_row(int32_t row);
    bool has_distinct_samplers() const;
};

Registry<Context> & contexts();

// Runs a call on the sequences of a context, for the C interface.
template <typename R = int32_t, typename F> R between_steps(int32_t context, F && body) noexcept {
    return guarded([&]() -> R {
        const auto c = contexts().get(context);
        return c->between_steps([&]() -> R { return static_cast<R>(body(c->sequences())); });
    });
}

}  // namespace cria
