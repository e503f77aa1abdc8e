// Contexts. Each owns one thread that creates the llama_context, runs every step and frees it: OpenMP keeps a
// team of workers per calling thread, so compute must never hop between threads.
#include "internal.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "common.h"
#include "ggml-cpu.h"
#include "workers.hpp"

namespace cria {

namespace {

constexpr int HEADER_FIELDS = 16;
constexpr int HEADER_RC = 0;
constexpr int HEADER_DECODE_US = 1;
constexpr int HEADER_SAMPLE_US = 2;
constexpr int HEADER_REUSED = 3;

// How long the engine thread stays awake after a step. Longer than JavaScript takes between two steps (some 100 us).
constexpr int64_t LOOK_OUT_US = 300;

// Fewer rows are sampled sooner than other threads wake up.
constexpr int32_t PARALLEL_ROWS = 4;

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
    p.n_outputs_max = p.embeddings ? p.n_batch : positive(config, "rows", p.n_batch);
    p.n_seq_max = positive(config, "sequences", static_cast<int64_t>(llama_max_parallel_sequences()));
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

const char * removal_name(common_context_seq_rm_type type) {
    switch (type) {
        case COMMON_CONTEXT_SEQ_RM_TYPE_PART: return "partial";
        case COMMON_CONTEXT_SEQ_RM_TYPE_FULL: return "full";
        case COMMON_CONTEXT_SEQ_RM_TYPE_RS: return "bounded";
        default: return "none";
    }
}

}  // namespace

class Context {
  public:
    Context(std::shared_ptr<Model> model, const common_json & config)
        : model_(std::move(model)), params_(context_params(config)),
          top_(static_cast<int32_t>(positive(config, "top", 1024))), pins_(config.value<int>("pins", 0)) {
        const auto most = static_cast<int64_t>(llama_max_parallel_sequences()) - params_.n_seq_max;
        if (pins_ < 0 || pins_ > most) fail_argument("pins must be 0 to " + std::to_string(most));
        params_.abort_callback = [](void * user) { return static_cast<Context *>(user)->abort_.load(); };
        params_.abort_callback_data = this;
        model_->contexts++;
        thread_ = std::thread([this] { run(); });
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return state_ != State::STARTING; });
        if (state_ == State::FAILED) {
            lock.unlock();
            thread_.join();
            model_->contexts--;
            fail_native(error_);
        }
    }

    ~Context() {
        if (!thread_.joinable()) return;
        abort_ = true;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            changed_.notify_all();
        }
        thread_.join();
        model_->contexts--;
    }

    uint64_t block_address() const { return reinterpret_cast<uint64_t>(block_.data()); }

    void submit(int32_t tokens, int32_t rows) {
        std::lock_guard<std::mutex> lock(mutex_);
        require_idle();
        validate(tokens, rows);
        n_tokens_ = tokens;
        n_rows_ = rows;
        abort_ = false;
        state_ = State::BUSY;
        changed_.notify_all();
    }

    bool wait(int32_t timeout_us) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (state_ == State::IDLE) fail_state("no step was submitted");
        const auto limit = std::chrono::microseconds(timeout_us);
        if (!changed_.wait_for(lock, limit, [&] { return state_ == State::DONE; })) return false;
        state_ = State::IDLE;
        if (!error_.empty()) {
            const std::string message = std::move(error_);
            error_.clear();
            fail_native(message);
        }
        return true;
    }

    void cancel() { abort_ = true; }

    // Runs a short call on the context from the caller's thread; legal only between steps.
    template <typename F> auto between_steps(F && body) -> decltype(body(static_cast<llama_context *>(nullptr))) {
        std::lock_guard<std::mutex> lock(mutex_);
        require_idle();
        return body(ctx_);
    }

    void require_sequence(int32_t sequence) const {
        if (sequence < 0 || sequence >= sequences_) {
            fail_argument("sequence is " + std::to_string(sequence) + ", expected 0 to " +
                          std::to_string(sequences_ - 1));
        }
    }

    bool shares_whole_sequences_only() const { return !shares_prefixes_; }

    void require_part(int32_t sequence, int32_t p0, int32_t p1) const {
        require_sequence(sequence);
        if (!shares_prefixes_) {
            if (p0 != 0 || p1 != -1) fail_state("this kind of memory has the state of whole sequences only");
            return;
        }
        if (sequence == STAGING) fail_argument("this sequence is for saving and restoring others");
        if (p0 < 0 || p1 <= p0) {
            fail_argument("positions are " + std::to_string(p0) + " to " + std::to_string(p1) +
                          ", expected a part of the sequence");
        }
    }

    // llama.cpp writes which cells a sequence has only for ids below n_seq_max, and reads a state as a whole. So a part
    // of a sequence goes through this one, which is never used otherwise.
    static constexpr llama_seq_id STAGING = 0;

    int32_t embedding_width() const { return llama_model_n_embd_out(model_->model); }

    common_json info() {
        return between_steps([&](llama_context * ctx) {
            return common_json::object({
                {"cells", llama_n_ctx(ctx)},
                {"batch", llama_n_ubatch(ctx)},
                {"rows", params_.n_outputs_max},
                {"sequences", sequences_},
                {"top", top_},
                {"memory", memory_kind(ctx)},
                {"removal", removal_name(removal_)},
                {"sharing", llama_get_memory(ctx) == nullptr ? "none" : shares_prefixes_ ? "prefix" : "whole"},
                {"can_shift", llama_get_memory(ctx) != nullptr && llama_memory_can_shift(llama_get_memory(ctx))},
                {"pooling", static_cast<int>(llama_pooling_type(ctx))},
                {"threads", llama_n_threads(ctx)},
                {"openmp", openmp_},
                {"block_fields", static_cast<uint64_t>(block_.size())},
            });
        });
    }

  private:
    enum class State { STARTING, FAILED, IDLE, BUSY, DONE };

    std::shared_ptr<Model> model_;
    llama_context_params params_;
    int32_t top_;
    int32_t pins_;
    int32_t sequences_ = 0;        // legal ids: 0 to sequences_ - 1
    bool shares_prefixes_ = false;  // any beginning of a sequence can be shared, not only all of it
    llama_context * ctx_ = nullptr;
    Threadpool threadpool_;
    bool openmp_ = false;
    common_context_seq_rm_type removal_ = COMMON_CONTEXT_SEQ_RM_TYPE_NO;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<State> state_{State::STARTING};
    bool stop_ = false;
    std::atomic<bool> abort_{false};
    std::string error_;
    std::thread thread_;

    std::unique_ptr<Workers> workers_;
    std::vector<const float *> logits_;  // of the rows of the step in flight

    std::vector<int32_t> block_;
    int32_t n_tokens_ = 0;
    int32_t n_rows_ = 0;
    std::vector<std::shared_ptr<Sampler>> samplers_;  // of the step in flight, so that freeing one is safe
    std::vector<int32_t> one_;
    std::vector<int32_t *> sequence_pointers_;
    std::vector<int8_t> wanted_;

    // ---- layout of the step block; cria.h documents it, ffi/step-block.ts mirrors it

    int32_t * field(int index) {
        const size_t batch = params_.n_batch;
        const size_t rows = params_.n_outputs_max;
        const size_t sizes[] = {HEADER_FIELDS, batch, batch, batch, rows, rows, rows, rows, rows, rows,
                                rows * static_cast<size_t>(top_), rows * static_cast<size_t>(top_)};
        size_t offset = 0;
        for (int i = 0; i < index; i++) offset += sizes[i];
        return block_.data() + offset;
    }

    int32_t * tokens() { return field(1); }
    int32_t * positions() { return field(2); }
    int32_t * sequences() { return field(3); }
    int32_t * row_index() { return field(4); }
    int32_t * row_sampler() { return field(5); }
    int32_t * row_top() { return field(6); }
    int32_t * out_token() { return field(7); }
    int32_t * out_status() { return field(8); }
    float * out_logprob() { return reinterpret_cast<float *>(field(9)); }
    int32_t * top_token() { return field(10); }
    float * top_logprob() { return reinterpret_cast<float *>(field(11)); }

    void require_idle() const {
        if (state_ != State::IDLE) fail_state("the context is busy with a step");
    }

    const char * memory_kind(llama_context * ctx) const {
        if (llama_get_memory(ctx) == nullptr) return "none";
        if (llama_model_is_recurrent(model_->model)) return "recurrent";
        if (llama_model_is_hybrid(model_->model)) return "hybrid";
        return llama_model_n_swa(model_->model) > 0 ? "window" : "dense";
    }

    // Whatever would make llama.cpp abort the process is refused here.
    void validate(int32_t n_tokens, int32_t n_rows) {
        if (n_tokens < 1 || n_tokens > static_cast<int32_t>(params_.n_batch)) {
            fail_argument("a step has " + std::to_string(n_tokens) + " tokens, expected 1 to " +
                          std::to_string(params_.n_batch));
        }
        if (n_rows < 0 || n_rows > std::min(n_tokens, static_cast<int32_t>(params_.n_outputs_max))) {
            fail_argument("a step has " + std::to_string(n_rows) + " rows, expected 0 to " +
                          std::to_string(params_.n_outputs_max) + " and no more than tokens");
        }
        for (int32_t i = 0; i < n_tokens; i++) {
            if (tokens()[i] < 0 || tokens()[i] >= model_->n_vocab) {
                fail_argument("token " + std::to_string(tokens()[i]) + " is not in the vocabulary");
            }
            require_sequence(sequences()[i]);
            if (positions()[i] < 0) fail_argument("position " + std::to_string(positions()[i]) + " is negative");
        }
        samplers_.clear();
        for (int32_t r = 0; r < n_rows; r++) {
            const int32_t index = row_index()[r];
            const int32_t before = r == 0 ? -1 : row_index()[r - 1];
            if (index <= before || index >= n_tokens) fail_argument("row indexes must rise and lie in the batch");
            if (row_top()[r] < -1 || row_top()[r] > top_) fail_argument("row_top is out of range");
            samplers_.push_back(sampler_of(row_sampler()[r]));
            if (samplers_.back()->model() != model_) fail_argument("a sampler belongs to another model");
        }
    }

    // ---- the engine thread

    void run() {
        const std::string failure = start();
        std::unique_lock<std::mutex> lock(mutex_);
        error_ = failure;
        state_ = failure.empty() ? State::IDLE : State::FAILED;
        changed_.notify_all();
        while (failure.empty()) {
            lock.unlock();
            look_out();
            lock.lock();
            changed_.wait(lock, [&] { return stop_ || state_ == State::BUSY; });
            if (stop_) break;
            lock.unlock();
            const std::string problem = step();
            lock.lock();
            error_ = problem;
            state_ = State::DONE;
            changed_.notify_all();
        }
        lock.unlock();
        if (ctx_ != nullptr) {
            llama_detach_threadpool(ctx_);
            llama_free(ctx_);
        }
    }

    // The next step usually follows within a fraction of a millisecond; waking a sleeping thread takes nearly as long.
    void look_out() {
        const int64_t until = ggml_time_us() + LOOK_OUT_US;
        while (state_ != State::BUSY && ggml_time_us() < until) std::this_thread::yield();
    }

    std::string start() noexcept {
        LogCapture capture;
        try {
            ctx_ = llama_init_from_model(model_->model, params_);
            if (ctx_ == nullptr) return capture.text("llama.cpp gave no reason");
            apply_adapters(*model_, ctx_);
            const int threads = std::max(params_.n_threads, params_.n_threads_batch);
            threadpool_.attach(ctx_, threads, openmp_);
            if (threadpool_needs_equal_threads()) llama_set_n_threads(ctx_, threads, threads);
            // Runs two tokens, which also warms the weights up.
            if (!params_.embeddings) removal_ = common_context_can_seq_rm(ctx_);
            classify_sharing();
            allocate_block();
            return "";
        } catch (const std::exception & e) {
            return capture.text(e.what());
        }
    }

    // A unified cache of plain cells takes any id up to 255, whatever n_seq_max is, and shares any cell. A sliding
    // window that is not kept whole loses what it leaves behind, and a recurrent state has no parts.
    void classify_sharing() {
        const bool has_states = llama_model_is_recurrent(model_->model) || llama_model_is_hybrid(model_->model);
        const bool is_window = llama_model_n_swa(model_->model) > 0 && !params_.swa_full;
        shares_prefixes_ =
            removal_ == COMMON_CONTEXT_SEQ_RM_TYPE_PART && !has_states && !is_window && llama_get_memory(ctx_) != nullptr;
        sequences_ = static_cast<int32_t>(params_.n_seq_max) + (shares_prefixes_ ? pins_ : 0);
    }

    bool threadpool_needs_equal_threads() const { return !openmp_; }

    void allocate_block() {
        one_.assign(params_.n_batch, 1);
        wanted_.assign(params_.n_batch, 0);
        sequence_pointers_.assign(params_.n_batch, nullptr);
        const size_t rows = params_.n_outputs_max;
        block_.assign(HEADER_FIELDS + 3 * params_.n_batch + 6 * rows + 2 * rows * static_cast<size_t>(top_), 0);
    }

    std::string step() noexcept {
        int32_t * header = block_.data();
        try {
            const int64_t started = ggml_time_us();
            header[HEADER_RC] = decode();
            const int64_t decoded = ggml_time_us();
            header[HEADER_DECODE_US] = static_cast<int32_t>(decoded - started);
            if (header[HEADER_RC] == 0) sample();
            header[HEADER_SAMPLE_US] = static_cast<int32_t>(ggml_time_us() - decoded);
            header[HEADER_REUSED] = llama_perf_context(ctx_).n_reused;
            return "";
        } catch (const std::exception & e) {
            return e.what();
        } catch (...) {
            return "unknown exception in a step";
        }
    }

    int32_t decode() {
        llama_batch batch{};
        batch.n_tokens = n_tokens_;
        batch.token = tokens();
        batch.pos = positions();
        batch.n_seq_id = one_.data();
        batch.seq_id = sequence_pointers_.data();
        batch.logits = wanted_.data();
        std::fill(wanted_.begin(), wanted_.begin() + n_tokens_, params_.embeddings ? 1 : 0);
        for (int32_t i = 0; i < n_tokens_; i++) sequence_pointers_[i] = sequences() + i;
        for (int32_t r = 0; r < n_rows_; r++) wanted_[row_index()[r]] = 1;
        const int32_t rc = llama_decode(ctx_, batch);
        if (rc == 0) llama_synchronize(ctx_);
        return rc;
    }

    // Rows are independent: each has its own sampler and its own place in the block. Only fetching the logits has to
    // happen on this thread.
    void sample() {
        logits_.clear();
        for (int32_t r = 0; r < n_rows_; r++) logits_.push_back(llama_get_logits_ith(ctx_, row_index()[r]));
        const bool is_parallel = n_rows_ >= PARALLEL_ROWS && params_.n_threads > 1 && has_distinct_samplers();
        if (!is_parallel) {
            for (int32_t r = 0; r < n_rows_; r++) sample_row(r);
            return;
        }
        if (!workers_) workers_ = std::make_unique<Workers>(params_.n_threads - 1);
        workers_->run(n_rows_, [this](int32_t row) { sample_row(row); });
    }

    void sample_row(int32_t r) {
        Draw draw;
        draw.top_count = row_top()[r];
        draw.top_capacity = top_;
        draw.top_token = top_token() + static_cast<size_t>(r) * top_;
        draw.top_logprob = top_logprob() + static_cast<size_t>(r) * top_;
        if (logits_[r] == nullptr) {
            draw.status = 1;
        } else {
            samplers_[r]->draw(logits_[r], draw);
        }
        out_token()[r] = draw.token;
        out_status()[r] = draw.status;
        out_logprob()[r] = draw.logprob;
    }

    bool has_distinct_samplers() const {
        for (size_t a = 0; a < samplers_.size(); a++) {
            for (size_t b = a + 1; b < samplers_.size(); b++) {
                if (samplers_[a] == samplers_[b]) return false;
            }
        }
        return true;
    }
};

namespace {

Registry<Context> & contexts() {
    static Registry<Context> instance("context");
    return instance;
}

llama_memory_t memory_of(llama_context * ctx) {
    llama_memory_t memory = llama_get_memory(ctx);
    if (memory == nullptr) fail_state("this kind of model keeps no memory between steps");
    return memory;
}

// Part of a sequence under an id whose state llama.cpp can save, for the life of this object.
class Staged {
  public:
    Staged(const Context & context, llama_context * ctx, int32_t sequence, int32_t p0, int32_t p1)
        : ctx_(ctx), is_copy_(!context.shares_whole_sequences_only()), id_(is_copy_ ? Context::STAGING : sequence) {
        if (is_copy_) llama_memory_seq_cp(memory_of(ctx_), sequence, id_, p0, p1);
    }

    ~Staged() {
        if (is_copy_) llama_memory_seq_rm(llama_get_memory(ctx_), id_, -1, -1);
    }

    Staged(const Staged &) = delete;
    Staged & operator=(const Staged &) = delete;

    llama_seq_id id() const { return id_; }

  private:
    llama_context * ctx_;
    bool is_copy_;
    llama_seq_id id_;
};

// Reads a state into an empty sequence. Leaves it empty when the state does not fit.
int64_t read_state(llama_context * ctx, llama_seq_id target, const uint8_t * data, int64_t length) {
    LogCapture capture;
    const size_t read = llama_state_seq_set_data_ext(ctx, data, static_cast<size_t>(length), target, 0);
    if (read == 0) {
        // A memory of several parts (window and full attention, recurrent and attention) may have read some.
        llama_memory_seq_rm(memory_of(ctx), target, -1, -1);
        fail_native(capture.text("the state does not fit this context"));
    }
    return static_cast<int64_t>(read);
}

}  // namespace

}  // namespace cria

using namespace cria;

int32_t cria_context_new(int32_t model, const uint8_t * json, int32_t length) {
    return guarded([&] {
        auto m = models().get(model);
        if (m->vocab_only) fail_state("the model was loaded without weights");
        const common_json config = in_json(json, length);
        return start_job([m, config](Job &) { return contexts().add(std::make_shared<Context>(m, config)); });
    });
}

int32_t cria_context_free(int32_t context) {
    return guarded([&]() -> int32_t {
        contexts().take(context);
        return CRIA_OK;
    });
}

int32_t cria_context_info(int32_t context) {
    return guarded([&] { return give_text(contexts().get(context)->info().dump_safe()); });
}

uint64_t cria_step_block(int32_t context) {
    uint64_t address = 0;
    (void) guarded([&]() -> int32_t {
        address = contexts().get(context)->block_address();
        return CRIA_OK;
    });
    return address;
}

int32_t cria_step_submit(int32_t context, int32_t tokens, int32_t rows) {
    return guarded([&]() -> int32_t {
        contexts().get(context)->submit(tokens, rows);
        return CRIA_OK;
    });
}

int32_t cria_step_wait(int32_t context, int32_t timeout_us) {
    return guarded([&]() -> int32_t { return contexts().get(context)->wait(timeout_us) ? CRIA_OK : CRIA_PENDING; });
}

int32_t cria_step_cancel(int32_t context) {
    return guarded([&]() -> int32_t {
        contexts().get(context)->cancel();
        return CRIA_OK;
    });
}

int32_t cria_embedding(int32_t context, int32_t sequence, float * out, int32_t capacity) {
    return guarded([&]() -> int32_t {
        auto c = contexts().get(context);
        return c->between_steps([&](llama_context * ctx) {
            const float * row = sequence >= 0 ? llama_get_embeddings_seq(ctx, sequence)
                                              : llama_get_embeddings_ith(ctx, -1 - sequence);
            if (row == nullptr) fail_state("the last step computed no such embedding");
            const int32_t width = c->embedding_width();
            if (capacity >= width) std::memcpy(out, row, static_cast<size_t>(width) * sizeof(float));
            return width;
        });
    });
}

int32_t cria_sequence_remove(int32_t context, int32_t sequence, int32_t p0, int32_t p1) {
    return guarded([&]() -> int32_t {
        auto c = contexts().get(context);
        c->require_sequence(sequence);
        return c->between_steps([&](llama_context * ctx) -> int32_t {
            llama_memory_t memory = llama_get_memory(ctx);
            return memory != nullptr && llama_memory_seq_rm(memory, sequence, p0, p1) ? 1 : 0;
        });
    });
}

int32_t cria_sequence_copy(int32_t context, int32_t source, int32_t target, int32_t p0, int32_t p1) {
    return guarded([&]() -> int32_t {
        auto c = contexts().get(context);
        c->require_sequence(source);
        c->require_sequence(target);
        if (c->shares_whole_sequences_only() && (p0 > 0 || p1 >= 0)) {
            fail_state("this kind of memory can only copy whole sequences");
        }
        return c->between_steps([&](llama_context * ctx) -> int32_t {
            llama_memory_seq_cp(memory_of(ctx), source, target, p0, p1);
            return CRIA_OK;
        });
    });
}

int32_t cria_sequence_shift(int32_t context, int32_t sequence, int32_t p0, int32_t p1, int32_t delta) {
    return guarded([&]() -> int32_t {
        auto c = contexts().get(context);
        c->require_sequence(sequence);
        if (p0 < 0 || p0 + static_cast<int64_t>(delta) < 0) fail_argument("a shift would make positions negative");
        return c->between_steps([&](llama_context * ctx) -> int32_t {
            llama_memory_t memory = memory_of(ctx);
            if (!llama_memory_can_shift(memory)) fail_state("this kind of memory cannot shift positions");
            llama_memory_seq_add(memory, sequence, p0, p1, delta);
            return CRIA_OK;
        });
    });
}

int32_t cria_sequence_range(int32_t context, int32_t sequence, int32_t * range) {
    return guarded([&]() -> int32_t {
        auto c = contexts().get(context);
        c->require_sequence(sequence);
        return c->between_steps([&](llama_context * ctx) -> int32_t {
            llama_memory_t memory = llama_get_memory(ctx);
            range[0] = memory == nullptr ? -1 : llama_memory_seq_pos_min(memory, sequence);
            range[1] = memory == nullptr ? -1 : llama_memory_seq_pos_max(memory, sequence);
            return CRIA_OK;
        });
    });
}

int32_t cria_memory_clear(int32_t context) {
    return guarded([&]() -> int32_t {
        return contexts().get(context)->between_steps([&](llama_context * ctx) -> int32_t {
            llama_memory_t memory = llama_get_memory(ctx);
            if (memory != nullptr) llama_memory_clear(memory, false);
            return CRIA_OK;
        });
    });
}

int64_t cria_state_size(int32_t context, int32_t sequence, int32_t p0, int32_t p1) {
    return guarded([&]() -> int64_t {
        auto c = contexts().get(context);
        c->require_part(sequence, p0, p1);
        return c->between_steps([&](llama_context * ctx) {
            const Staged staged(*c, ctx, sequence, p0, p1);
            return static_cast<int64_t>(llama_state_seq_get_size_ext(ctx, staged.id(), 0));
        });
    });
}

int64_t cria_state_get(int32_t context, int32_t sequence, int32_t p0, int32_t p1, uint8_t * data, int64_t capacity) {
    return guarded([&]() -> int64_t {
        auto c = contexts().get(context);
        c->require_part(sequence, p0, p1);
        if (capacity < 0) fail_argument("capacity is negative");
        return c->between_steps([&](llama_context * ctx) {
            const Staged staged(*c, ctx, sequence, p0, p1);
            const size_t written =
                llama_state_seq_get_data_ext(ctx, data, static_cast<size_t>(capacity), staged.id(), 0);
            if (written == 0) fail_native("the state of the sequence could not be read");
            return static_cast<int64_t>(written);
        });
    });
}

int64_t cria_state_set(int32_t context, int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data,
                       int64_t length) {
    return guarded([&]() -> int64_t {
        auto c = contexts().get(context);
        c->require_part(sequence, p0, p1);
        if (length < 0) fail_argument("length is negative");
        return c->between_steps([&](llama_context * ctx) {
            if (c->shares_whole_sequences_only()) return read_state(ctx, sequence, data, length);
            const int64_t read = read_state(ctx, Context::STAGING, data, length);
            llama_memory_t memory = memory_of(ctx);
            const bool has_part = llama_memory_seq_pos_min(memory, Context::STAGING) <= p0 &&
                                  llama_memory_seq_pos_max(memory, Context::STAGING) >= p1 - 1;
            if (has_part) llama_memory_seq_cp(memory, Context::STAGING, sequence, p0, p1);
            llama_memory_seq_rm(memory, Context::STAGING, -1, -1);
            if (!has_part) fail_native("the state has not all of these positions");
            return read;
        });
    });
}
