// Process-wide things: initialisation, errors and texts per thread, the log ring, devices, jobs.
#include "internal.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "ggml.h"
#include "log.h"

#if defined(_WIN32)
#    include <io.h>
#    define write _write
#else
#    include <poll.h>
#    include <unistd.h>
#endif

namespace cria {

namespace {

thread_local std::string last_error;
thread_local std::string last_text;

// ---- log ring ----------------------------------------------------------------------------------------

constexpr size_t RING_BYTES_MAX = 256 * 1024;  // a model load logs some 30 kB; several loads fit

struct Ring {
    std::mutex mutex;
    std::deque<std::string> lines;  // first byte is the level letter
    size_t bytes = 0;
    size_t dropped = 0;
};

// Leaked on purpose: backends log from static destructors.
Ring & ring() {
    static Ring * const instance = new Ring();
    return *instance;
}

std::atomic<int> log_level{1};

thread_local std::string partial_line;  // messages come in fragments; a line ends with \n
thread_local char partial_level = 'I';
thread_local int capture_depth = 0;
thread_local std::string captured;
thread_local std::function<void(const std::string &)> observer;

char level_letter(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR: return 'E';
        case GGML_LOG_LEVEL_WARN: return 'W';
        case GGML_LOG_LEVEL_INFO: return 'I';
        default: return 'D';
    }
}

int level_rank(char letter) { return letter == 'E' ? 3 : letter == 'W' ? 2 : letter == 'I' ? 1 : 0; }

void finish_line(const std::string & message) {
    if (message.empty()) return;
    if (observer) observer(message);
    if (capture_depth > 0 && partial_level == 'E') {
        if (!captured.empty()) captured += "; ";
        captured += message;
    }
    if (level_rank(partial_level) < log_level) return;
    Ring & r = ring();
    std::lock_guard<std::mutex> lock(r.mutex);
    r.lines.push_back(partial_level + message);
    r.bytes += message.size() + 1;
    while (r.bytes > RING_BYTES_MAX) {
        r.bytes -= r.lines.front().size();
        r.lines.pop_front();
        r.dropped++;
    }
}

// Called by llama.cpp and ggml from any thread.
void on_log(ggml_log_level level, const char * text, void *) {
    if (level != GGML_LOG_LEVEL_CONT) partial_level = level_letter(level);
    const char * rest = text;
    while (const char * end = std::strchr(rest, '\n')) {
        partial_line.append(rest, end);
        finish_line(partial_line);
        partial_line.clear();
        rest = end + 1;
    }
    partial_line += rest;
}

// ggml aborts the process right after this returns. The parent reads the line from our stderr.
void on_abort(const char * message) {
    const std::string line = std::string("cria: native abort: ") + message + "\n";
    (void) !write(2, line.data(), static_cast<unsigned>(line.size()));
}

// Without it ggml_abort forks a debugger before it ends the process.
void forbid_backtrace() {
#if defined(_WIN32)
    _putenv_s("GGML_NO_BACKTRACE", "1");
#else
    setenv("GGML_NO_BACKTRACE", "1", 0);
#endif
}

Registry<Job> & jobs() {
    static Registry<Job> instance("job");
    return instance;
}

int32_t copy_out(const std::string & text, uint8_t * buffer, int32_t capacity) {
    if (buffer != nullptr && capacity > 0) {
        std::memcpy(buffer, text.data(), std::min(text.size(), static_cast<size_t>(capacity)));
    }
    return static_cast<int32_t>(text.size());
}

const char * device_type(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU: return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU: return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU: return "igpu";
        default: return "accel";
    }
}

}  // namespace

int32_t remember(int32_t status, const std::string & message) {
    last_error = message;
    return status;
}

int32_t give_text(std::string text) {
    last_text = std::move(text);
    return static_cast<int32_t>(last_text.size());
}

LogCapture::LogCapture() {
    if (capture_depth++ == 0) captured.clear();
}

LogCapture::~LogCapture() { capture_depth--; }

LineObserver::LineObserver(std::function<void(const std::string &)> see) { observer = std::move(see); }
LineObserver::~LineObserver() { observer = nullptr; }

std::string LogCapture::text(const std::string & fallback) const { return captured.empty() ? fallback : captured; }

int32_t next_handle() {
    static std::atomic<int32_t> counter{0};
    return ++counter;
}

int32_t start_job(std::function<int32_t(Job &)> body) {
    auto job = std::make_shared<Job>();
    Job * raw = job.get();  // the job joins its thread before it goes
    job->thread = std::thread([raw, body = std::move(body)] {
        const int32_t result = guarded([&] { return body(*raw); });
        std::lock_guard<std::mutex> lock(raw->mutex);
        raw->result = result;
        if (result < 0) raw->error = last_error;
        raw->done = true;
        raw->changed.notify_all();
    });
    return jobs().add(std::move(job));
}

}  // namespace cria

using namespace cria;

int32_t cria_abi_version(void) { return CRIA_ABI_VERSION; }

int32_t cria_init(const uint8_t * json, int32_t length) {
    return guarded([&]() -> int32_t {
        static std::mutex mutex;
        static bool initialised = false;
        std::lock_guard<std::mutex> lock(mutex);
        const common_json config = in_json(json, length);
        log_level = config.value<int>("log_level", 1);
        if (initialised) return CRIA_OK;

        forbid_backtrace();

        llama_log_set(on_log, nullptr);
        ggml_set_abort_callback(on_abort);
        common_log_set_verbosity_thold(-1);
        common_log_pause(common_log_main());

        const std::string backend_dir = config.value<std::string>("backend_dir", "");
        LogCapture capture;
        ggml_backend_load_all_from_path(backend_dir.empty() ? nullptr : backend_dir.c_str());
        if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
            fail_native("no CPU backend could be loaded from \"" + backend_dir + "\": " + capture.text("none found"));
        }
        llama_backend_init();
        initialised = true;
        return CRIA_OK;
    });
}

int32_t cria_text(uint8_t * buffer, int32_t capacity) { return copy_out(last_text, buffer, capacity); }

int32_t cria_error(uint8_t * buffer, int32_t capacity) { return copy_out(last_error, buffer, capacity); }

int32_t cria_log_drain(void) {
    return guarded([&] {
        Ring & r = ring();
        std::lock_guard<std::mutex> lock(r.mutex);
        std::string text;
        text.reserve(r.bytes + r.lines.size());
        if (r.dropped > 0) text += "W" + std::to_string(r.dropped) + " older log lines were dropped\n";
        for (const std::string & line : r.lines) text += line + "\n";
        r.lines.clear();
        r.bytes = 0;
        r.dropped = 0;
        return give_text(std::move(text));
    });
}

int32_t cria_system(void) {
    return guarded([&] {
        common_json devices = common_json::array();
        for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
            ggml_backend_dev_t device = ggml_backend_dev_get(i);
            size_t free_bytes = 0;
            size_t total_bytes = 0;
            ggml_backend_dev_memory(device, &free_bytes, &total_bytes);
            devices.push_back({
                {"name", ggml_backend_dev_name(device)},
                {"description", ggml_backend_dev_description(device)},
                {"type", device_type(ggml_backend_dev_type(device))},
                {"backend", ggml_backend_reg_name(ggml_backend_dev_backend_reg(device))},
                {"free_bytes", static_cast<uint64_t>(free_bytes)},
                {"total_bytes", static_cast<uint64_t>(total_bytes)},
            });
        }
        const common_json system = common_json::object({
            {"llama_version", llama_version()},
            {"system", llama_print_system_info()},
            {"devices", devices},
        });
        return give_text(system.dump_safe());
    });
}

int32_t cria_exit_with_input(int32_t grace_ms) {
#if defined(_WIN32)
    (void) grace_ms;
    return remember(CRIA_ERR_STATE, "not available on Windows");
#else
    static std::once_flag once;
    std::call_once(once, [grace_ms] {
        std::thread([grace_ms] {
            pollfd input{};  // no events asked for: only the hang-up is reported
            while (poll(&input, 1, -1) < 0 || (input.revents & (POLLHUP | POLLERR | POLLNVAL)) == 0) {
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(grace_ms));
            _exit(1);
        }).detach();
    });
    return CRIA_OK;
#endif
}

int32_t cria_job_wait(int32_t job, int32_t timeout_us) {
    return guarded([&]() -> int32_t {
        auto j = jobs().get(job);
        std::unique_lock<std::mutex> lock(j->mutex);
        const bool done = j->changed.wait_for(lock, std::chrono::microseconds(timeout_us), [&] { return j->done; });
        return done ? CRIA_OK : CRIA_PENDING;
    });
}

float cria_job_progress(int32_t job) {
    float progress = 0.0f;
    (void) guarded([&]() -> int32_t {
        progress = jobs().get(job)->progress;
        return CRIA_OK;
    });
    return progress;
}

int32_t cria_job_cancel(int32_t job) {
    return guarded([&]() -> int32_t {
        jobs().get(job)->cancelled = true;
        return CRIA_OK;
    });
}

int32_t cria_job_finish(int32_t job) {
    return guarded([&]() -> int32_t {
        auto j = jobs().take(job);
        j->thread.join();
        return j->result < 0 ? remember(j->result, j->error) : j->result;
    });
}
