// How long OpenMP's threads spin at a barrier before they sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#include <pthread.h>
#endif

namespace cria {

// The threads that compute: OpenMP keeps them for the thread that asks for them.
class Team {
  public:
    // Call it on the thread that will compute.
    explicit Team(int32_t count) : count_(count) { find(); }

    // How long each of them was running up to now, in nanoseconds. Empty while nobody can say.
    std::vector<int64_t> running_ns() {
        std::vector<int64_t> times;
        for (const clockid_t clock : clocks_) {
            timespec time;
            if (clock_gettime(clock, &time) != 0) {
                // That thread is gone; there is another one in its place.
                find();
                return {};
            }
            times.push_back(static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec);
        }
        return times;
    }

  private:
    // Where the others cannot be found, the one that is asked stands for all.
    void find() {
        clocks_ = {CLOCK_THREAD_CPUTIME_ID};
#if defined(_OPENMP)
        std::vector<clockid_t> clocks(static_cast<size_t>(count_));
        std::atomic<int32_t> found{0};
#pragma omp parallel num_threads(count_)
        if (pthread_getcpuclockid(pthread_self(), &clocks[static_cast<size_t>(omp_get_thread_num())]) == 0) found++;
        if (found == count_) clocks_ = clocks;
#endif
    }

    int32_t count_;
    std::vector<clockid_t> clocks_;
};

// Threads that exist and do nothing, so that OpenMP has more threads than there are processors. All of them spin for
// 1,000 rounds at most then (libgomp's manual, GOMP_SPINCOUNT; OMP_WAIT_POLICY has to be ACTIVE), and as long as
// GOMP_SPINCOUNT says when these are gone. Nothing else changes it while a process runs.
class Crowd {
  public:
    // Throws std::system_error where there may not be so many threads.
    explicit Crowd(int32_t computing) {
#if defined(_OPENMP)
        count_ = std::max(2, omp_get_num_procs() - computing + 2);
#endif
        try_threads();
        thread_ = std::thread([this] { stay(); });
    }

    ~Crowd() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    Crowd(const Crowd &) = delete;
    Crowd & operator=(const Crowd &) = delete;

  private:
    // libgomp ends the process when it cannot make a thread.
    void try_threads() const {
        std::mutex gate;
        std::vector<std::thread> threads;
        const auto join = [&] {
            for (std::thread & thread : threads) thread.join();
        };
        std::unique_lock<std::mutex> closed(gate);
        try {
            for (int32_t i = 0; i <= count_; i++) threads.emplace_back([&] { std::lock_guard<std::mutex> pass(gate); });
        } catch (...) {
            closed.unlock();
            join();
            throw;
        }
        closed.unlock();
        join();
    }

    // The team ends with the thread that made it.
    void stay() {
#if defined(_OPENMP)
        std::atomic<int32_t> there{0};
#pragma omp parallel num_threads(count_)
        there++;
#endif
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return stop_; });
    }

    int32_t count_ = 0;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false;
    std::thread thread_;
};

// Chooses between long and short spinning, from step to step.
//
// Waking a thread that sleeps takes longer than most of what it waits for, above all on virtual machines: long spinning
// is faster. But when another program has the core of a thread that all others wait for, those had better sleep: it
// gets one of their cores then, and they keep their share of time for later. A thread that was not running for a good
// part of the steps tells that there is such a program.
class Spinning {
  public:
    // Call it, and all else, on the thread that computes.
    explicit Spinning(int32_t threads) : threads_(threads), team_(threads) {}

    bool is_short() const { return crowd_ != nullptr; }

    void begin(int64_t now_us) {
        began_us_ = now_us;
        began_ns_ = team_.running_ns();
    }

    void end(int64_t now_us) {
        const std::vector<int64_t> ended_ns = team_.running_ns();
        if (ended_ns.empty() || ended_ns.size() != began_ns_.size()) return;
        ran_ns_.resize(ended_ns.size());
        for (size_t i = 0; i < ended_ns.size(); i++) ran_ns_[i] += ended_ns[i] - began_ns_[i];
        wall_us_ += now_us - began_us_;
        if (wall_us_ >= WINDOW_US) decide(now_us);
    }

  private:
    void decide(int64_t now_us) {
        const int64_t least_ns = *std::min_element(ran_ns_.begin(), ran_ns_.end());
        const double part = static_cast<double>(least_ns) / static_cast<double>(wall_us_ * 1000);
        ran_ns_.clear();
        wall_us_ = 0;
        if (!crowd_ && part < CROWDED) {
            gather(now_us);
        } else if (crowd_ && part > FREE && now_us - crowded_us_ > PATIENCE_US) {
            crowd_.reset();
        }
    }

    void gather(int64_t now_us) {
        if (!may_gather_) return;
        try {
            crowd_ = std::make_unique<Crowd>(threads_);
            crowded_us_ = now_us;
        } catch (const std::system_error &) {
            may_gather_ = false;
        }
    }

    // Time of steps that is looked at together: some slices of time of another program.
    static constexpr int64_t WINDOW_US = 200000;
    // Beside one busy program per core a thread runs half of the time.
    static constexpr double CROWDED = 0.75;
    // With nothing beside them threads run nearly all the time, though with short spinning they sleep now and then.
    static constexpr double FREE = 0.85;
    // Time until the cores may count as free again.
    static constexpr int64_t PATIENCE_US = 2000000;

    int32_t threads_;
    Team team_;
    std::unique_ptr<Crowd> crowd_;
    bool may_gather_ = true;
    int64_t crowded_us_ = 0;
    int64_t began_us_ = 0;
    std::vector<int64_t> began_ns_;
    // Of the steps since the last decision.
    std::vector<int64_t> ran_ns_;
    int64_t wall_us_ = 0;
};

}  // namespace cria
