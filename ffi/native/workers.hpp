// Threads that share the rows of a step. They sleep between steps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cria {

class Workers {
  public:
    explicit Workers(int32_t count) {
        for (int32_t i = 0; i < count; i++) threads_.emplace_back([this] { loop(); });
    }

    ~Workers() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        for (std::thread & thread : threads_) thread.join();
    }

    Workers(const Workers &) = delete;
    Workers & operator=(const Workers &) = delete;

    // Calls body(0) ... body(count - 1), each once, on these threads and the caller's; returns when all are done.
    // The body must not throw.
    void run(int32_t count, const std::function<void(int32_t)> & body) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            body_ = &body;
            count_ = count;
            next_ = 0;
            busy_ = static_cast<int32_t>(threads_.size());
            round_++;
        }
        changed_.notify_all();
        work();
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return busy_ == 0; });
    }

  private:
    void work() {
        for (int32_t i = next_++; i < count_; i = next_++) (*body_)(i);
    }

    void loop() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [&] { return stop_ || round_ != seen; });
            if (stop_) return;
            seen = round_;
            lock.unlock();
            work();
            lock.lock();
            if (--busy_ == 0) changed_.notify_all();
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable changed_;
    const std::function<void(int32_t)> * body_ = nullptr;
    int32_t count_ = 0;
    std::atomic<int32_t> next_{0};
    int32_t busy_ = 0;
    uint64_t round_ = 0;
    bool stop_ = false;
};

}  // namespace cria
