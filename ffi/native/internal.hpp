// Shared by the shim's source files: errors, handles, jobs, JSON in and text out.
#pragma once

#include "cria.h"

#include "json.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace cria {

// An error that already knows its status and has a message for people.
struct Failure : std::runtime_error {
    int32_t status;
    Failure(int32_t status, const std::string & message) : std::runtime_error(message), status(status) {}
};

[[noreturn]] inline void fail_argument(const std::string & message) { throw Failure(CRIA_ERR_ARGUMENT, message); }
[[noreturn]] inline void fail_state(const std::string & message) { throw Failure(CRIA_ERR_STATE, message); }
[[noreturn]] inline void fail_native(const std::string & message) { throw Failure(CRIA_ERR_NATIVE, message); }

// Fails with what llama.cpp logged. Only its words tell that memory ran out.
[[noreturn]] inline void fail_logged(const std::string & message) {
    for (const char * word : {"allocat", "out of memory"}) {
        if (message.find(word) != std::string::npos) throw Failure(CRIA_ERR_MEMORY, message);
    }
    fail_native(message);
}

// Remembers the message for cria_error() on this thread and gives the status back.
int32_t remember(int32_t status, const std::string & message);
// Hands text to cria_text() on this thread; its length.
int32_t give_text(std::string text);

// Runs a function body so that no exception leaves it.
template <typename F> auto guarded(F && body) noexcept -> decltype(body()) {
    try {
        return body();
    } catch (const Failure & e) {
        return remember(e.status, e.what());
    } catch (const std::bad_alloc &) {
        return remember(CRIA_ERR_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        return remember(CRIA_ERR_NATIVE, e.what());
    } catch (...) {
        return remember(CRIA_ERR_NATIVE, "unknown exception");
    }
}

inline std::string in_text(const uint8_t * text, int32_t length) {
    if (length < 0 || (text == nullptr && length > 0)) fail_argument("text has a negative length or no address");
    return std::string(reinterpret_cast<const char *>(text), static_cast<size_t>(length));
}

inline common_json in_json(const uint8_t * text, int32_t length) {
    common_json json = common_json::parse_no_throw(in_text(text, length));
    if (json.is_discarded() || !json.is_object()) fail_argument("configuration is not a JSON object");
    return json;
}

// While one lives, ERROR lines that this thread logs are kept: llama.cpp reports most failures only there.
class LogCapture {
  public:
    LogCapture();
    ~LogCapture();
    // The captured lines joined by "; ", or the fallback when nothing was logged.
    std::string text(const std::string & fallback) const;
};

// While one lives, it sees every line that this thread logs. At most one per thread.
class LineObserver {
  public:
    explicit LineObserver(std::function<void(const std::string &)> see);
    ~LineObserver();
};

// ---- handles -----------------------------------------------------------------------------------------

int32_t next_handle();

// Objects of one type by handle. Lookups hand out shared ownership, so freeing never pulls an object away
// from a step or a job that still uses it.
template <typename T> class Registry {
  public:
    explicit Registry(const char * name) : name_(name) {}

    int32_t add(std::shared_ptr<T> object) {
        std::lock_guard<std::mutex> lock(mutex_);
        const int32_t handle = next_handle();
        objects_.emplace(handle, std::move(object));
        return handle;
    }

    std::shared_ptr<T> get(int32_t handle) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto it = objects_.find(handle);
        if (it == objects_.end()) fail_state(std::string("this ") + name_ + " was freed or never existed");
        return it->second;
    }

    std::shared_ptr<T> take(int32_t handle) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto it = objects_.find(handle);
        if (it == objects_.end()) fail_state(std::string("this ") + name_ + " was freed or never existed");
        auto object = it->second;
        objects_.erase(it);
        return object;
    }

  private:
    const char * name_;
    std::mutex mutex_;
    std::unordered_map<int32_t, std::shared_ptr<T>> objects_;
};

// ---- jobs --------------------------------------------------------------------------------------------

// A long call on a thread of its own. The body returns a handle or throws.
struct Job {
    std::atomic<float> progress{0.0f};
    std::atomic<bool> cancelled{false};
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    int32_t result = CRIA_ERR_STATE;
    std::string error;
    std::thread thread;

    ~Job() {
        cancelled = true;
        if (thread.joinable()) thread.join();
    }
};

int32_t start_job(std::function<int32_t(Job &)> body);

// ---- objects -----------------------------------------------------------------------------------------

struct Model {
    llama_model * model = nullptr;
    const llama_vocab * vocab = nullptr;
    int32_t n_vocab = 0;
    bool vocab_only = false;
    std::atomic<int> contexts{0};
    std::vector<llama_adapter_lora *> adapters;
    ~Model();
};

// Loads LoRA adapters for a model; before its first context.
void load_adapters(Model & model, const std::vector<std::string> & paths);
// Makes a new context use the adapters of its model.
void apply_adapters(Model & model, llama_context * context);

Registry<Model> & models();

std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text, bool add_special,
                                  bool parse_special);

// What one row of a step asks for and gets; arrays live in the step block.
struct Draw {
    int32_t top_count;  // -1: no logprobs
    int32_t top_capacity;
    int32_t token = -1;
    int32_t status = 0;
    float logprob = 0.0f;
    int32_t * top_token;
    float * top_logprob;
};

class Sampler {
  public:
    virtual ~Sampler() = default;
    // Draws the next token from one row of logits and accepts it. The row is changed meanwhile, and as it was afterwards.
    virtual void draw(float * logits, Draw & draw) = 0;
    virtual std::shared_ptr<Model> model() const = 0;
};

std::shared_ptr<Sampler> sampler_of(int32_t handle);

}  // namespace cria
