// Contexts and their steps.
#include "context.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace cria {

namespace {

// How long the engine thread stays awake after a step. Longer than JavaScript takes between two steps (some 100 us).
constexpr int64_t LOOK_OUT_US = 300;

// Fewer rows are sampled sooner than other threads wake up.
constexpr int32_t PARALLEL_ROWS = 4;

}  // namespace

Registry<Context> & contexts() {
    static Registry<Context> instance("context");
    return instance;
}

Context::Context(std::shared_ptr<Model> model, const common_json & config)
    : model_(std::move(model)), params_(context_params(config)),
      top_(static_cast<int32_t>(positive(config, "top", 1024))), pins_(config.value<int>("pins", 0)),
      adapts_threads_(config.value<bool>("adapt_threads", false)) {
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
        fail_logged(error_);
    }
}

Context::~Context() {
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

void Context::submit(int32_t tokens, int32_t rows) {
    std::lock_guard<std::mutex> lock(mutex_);
    require_idle();
    validate(tokens, rows);
    n_tokens_ = tokens;
    n_rows_ = rows;
    abort_ = false;
    state_ = State::BUSY;
    changed_.notify_all();
}

bool Context::wait(int32_t timeout_us) {
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

common_json Context::info() const {
    return common_json::object({
        {"cells", llama_n_ctx(ctx_)},
        {"batch", llama_n_ubatch(ctx_)},
        {"rows", params_.n_outputs_max},
        {"sequences", sequences_->count()},
        {"first_sequence", sequences_->first()},
        {"top", top_},
        {"memory", sequences_->kind()},
        {"removal", sequences_->removal()},
        {"sharing", sequences_->sharing()},
        {"can_shift", sequences_->can_shift()},
        {"pooling", static_cast<int>(llama_pooling_type(ctx_))},
        {"threads", llama_n_threads(ctx_)},
        {"openmp", openmp_},
        {"short_spin", spinning_ && spinning_->is_short()},
        {"block_fields", static_cast<uint64_t>(block_.size())},
    });
}

int32_t Context::embedding(int32_t sequence, float * out, int32_t capacity) const {
    const float * row =
        sequence >= 0 ? llama_get_embeddings_seq(ctx_, sequence) : llama_get_embeddings_ith(ctx_, -1 - sequence);
    if (row == nullptr) fail_state("the last step computed no such embedding");
    const int32_t width = llama_model_n_embd_out(model_->model);
    if (capacity >= width) std::memcpy(out, row, static_cast<size_t>(width) * sizeof(float));
    return width;
}

void Context::require_idle() const {
    if (state_ != State::IDLE) fail_state("the context is busy with a step");
}

// Whatever would make llama.cpp abort the process is refused here.
void Context::validate(int32_t n_tokens, int32_t n_rows) {
    if (n_tokens < 1 || n_tokens > static_cast<int32_t>(params_.n_batch)) {
        fail_argument("a step has " + std::to_string(n_tokens) + " tokens, expected 1 to " +
                      std::to_string(params_.n_batch));
    }
    if (n_rows < 0 || n_rows > std::min(n_tokens, static_cast<int32_t>(params_.n_outputs_max))) {
        fail_argument("a step has " + std::to_string(n_rows) + " rows, expected 0 to " +
                      std::to_string(params_.n_outputs_max) + " and no more than tokens");
    }
    validate_tokens(n_tokens);
    take_samplers(n_tokens, n_rows);
}

void Context::validate_tokens(int32_t n_tokens) {
    for (int32_t i = 0; i < n_tokens; i++) {
        const int32_t token = block_.token()[i];
        const int32_t position = block_.position()[i];
        if (token < 0 || token >= model_->n_vocab) {
            fail_argument("token " + std::to_string(token) + " is not in the vocabulary");
        }
        sequences_->require(block_.sequence()[i]);
        if (position < 0) fail_argument("position " + std::to_string(position) + " is negative");
    }
}

void Context::take_samplers(int32_t n_tokens, int32_t n_rows) {
    samplers_.clear();
    for (int32_t r = 0; r < n_rows; r++) {
        const int32_t index = block_.row_index()[r];
        const int32_t before = r == 0 ? -1 : block_.row_index()[r - 1];
        const int32_t top = block_.row_top()[r];
        if (index <= before || index >= n_tokens) fail_argument("row indexes must rise and lie in the batch");
        if (top < -1 || top > top_) fail_argument("row_top is out of range");
        samplers_.push_back(sampler_of(block_.row_sampler()[r]));
        if (samplers_.back()->model() != model_) fail_argument("a sampler belongs to another model");
    }
}

// ---- the engine thread

void Context::run() {
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
void Context::look_out() {
    const int64_t until = ggml_time_us() + LOOK_OUT_US;
    while (state_ != State::BUSY && ggml_time_us() < until) std::this_thread::yield();
}

std::string Context::start() noexcept {
    LogCapture capture;
    try {
        ctx_ = llama_init_from_model(model_->model, params_);
        if (ctx_ == nullptr) return capture.text("llama.cpp gave no reason");
        apply_adapters(*model_, ctx_);
        const int threads = std::max(params_.n_threads, params_.n_threads_batch);
        threadpool_.attach(ctx_, threads, openmp_);
        if (!openmp_) llama_set_n_threads(ctx_, threads, threads);
        if (openmp_) spinning_ = std::make_unique<Spinning>(threads);
        if (!openmp_ && adapts_threads_) thread_count_ = std::make_unique<ThreadCount>(threads);
        sequences_ = std::make_unique<Sequences>(*model_, ctx_, params_, pins_);
        wanted_.assign(params_.n_batch, 0);
        block_.allocate(params_.n_batch, params_.n_outputs_max, static_cast<size_t>(top_));
        return "";
    } catch (const std::exception & e) {
        return capture.text(e.what());
    }
}

std::string Context::step() noexcept {
    int32_t * header = block_.header();
    try {
        const int32_t reused = llama_perf_context(ctx_).n_reused;
        const int64_t started = ggml_time_us();
        header[StepBlock::RC] = decode();
        const int64_t decoded = ggml_time_us();
        header[StepBlock::DECODE_US] = static_cast<int32_t>(decoded - started);
        header[StepBlock::SAMPLE_THREADS] = header[StepBlock::RC] == 0 ? sample() : 0;
        header[StepBlock::SAMPLE_US] = static_cast<int32_t>(ggml_time_us() - decoded);
        header[StepBlock::REUSED] = llama_perf_context(ctx_).n_reused - reused;
        return "";
    } catch (const std::exception & e) {
        return e.what();
    } catch (...) {
        return "unknown exception in a step";
    }
}

int32_t Context::decode() {
    llama_batch batch{};
    batch.n_tokens = n_tokens_;
    batch.token = block_.token();
    batch.pos = block_.position();
    batch.logits = wanted_.data();
    sequences_->enter(batch, block_.sequence());
    std::fill(wanted_.begin(), wanted_.begin() + n_tokens_, params_.embeddings ? 1 : 0);
    for (int32_t r = 0; r < n_rows_; r++) wanted_[block_.row_index()[r]] = 1;
    const int32_t rc = compute(batch);
    if (rc != 0) sequences_->leave(batch, block_.sequence());
    return rc;
}

int32_t Context::compute(const llama_batch & batch) {
    const int64_t started = ggml_time_us();
    const int64_t running = ThreadCount::running_us(started);
    if (spinning_) spinning_->begin(started);
    const int32_t rc = llama_decode(ctx_, batch);
    if (rc == 0) llama_synchronize(ctx_);
    if (spinning_) spinning_->end(ggml_time_us());
    if (!thread_count_) return rc;
    const int64_t ended = ggml_time_us();
    thread_count_->observe(ended, ended - started, ThreadCount::running_us(ended) - running);
    if (llama_n_threads(ctx_) != thread_count_->count()) {
        llama_set_n_threads(ctx_, thread_count_->count(), thread_count_->count());
    }
    return rc;
}

// Rows are independent: each has its own sampler and its own place in the block. Only fetching the logits has to
// happen on this thread. Gives the number of threads that took part.
int32_t Context::sample() {
    logits_.clear();
    for (int32_t r = 0; r < n_rows_; r++) logits_.push_back(llama_get_logits_ith(ctx_, block_.row_index()[r]));
    const bool is_parallel = n_rows_ >= PARALLEL_ROWS && params_.n_threads > 1 && has_distinct_samplers();
    if (!is_parallel) {
        for (int32_t r = 0; r < n_rows_; r++) sample_row(r);
        return 1;
    }
    if (!workers_) workers_ = std::make_unique<Workers>(params_.n_threads - 1);
    workers_->run(n_rows_, [this](int32_t row) { sample_row(row); });
    return params_.n_threads;
}

void Context::sample_row(int32_t row) {
    Draw draw;
    draw.top_count = block_.row_top()[row];
    draw.top_capacity = top_;
    draw.top_token = block_.top_token(row);
    draw.top_logprob = block_.top_logprob(row);
    if (logits_[row] == nullptr) {
        draw.status = 1;
    } else {
        samplers_[row]->draw(logits_[row], draw);
    }
    block_.out_token()[row] = draw.token;
    block_.out_status()[row] = draw.status;
    block_.out_logprob()[row] = draw.logprob;
}

bool Context::has_distinct_samplers() const {
    for (size_t a = 0; a < samplers_.size(); a++) {
        for (size_t b = a + 1; b < samplers_.size(); b++) {
            if (samplers_[a] == samplers_[b]) return false;
        }
    }
    return true;
}

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
    return guarded([&] {
        const auto c = contexts().get(context);
        return give_text(c->between_steps([&] { return c->info(); }).dump_safe());
    });
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
    return guarded([&] {
        const auto c = contexts().get(context);
        return c->between_steps([&] { return c->embedding(sequence, out, capacity); });
    });
}
