// Reading a row of logits: its best, its best k, its sum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "llama.h"

namespace cria {

// Rows are read in blocks whose maximum the compiler finds with vector instructions: most blocks hold nothing of
// interest and are passed over.
constexpr int32_t BLOCK = 64;

inline float block_max(const float * v, int32_t n) {
    float lanes[8];
    for (float & lane : lanes) lane = -std::numeric_limits<float>::infinity();
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int32_t j = 0; j < 8; j++) lanes[j] = v[i + j] > lanes[j] ? v[i + j] : lanes[j];
    }
    float best = lanes[0];
    for (float lane : lanes) best = lane > best ? lane : best;
    for (; i < n; i++) best = v[i] > best ? v[i] : best;
    return best;
}

// Index of the largest logit, the first of equal ones; values that are not numbers never win.
inline int32_t best_index(const float * logits, int32_t n) {
    int32_t best_block = 0;
    float best = -std::numeric_limits<float>::infinity();
    for (int32_t start = 0; start < n; start += BLOCK) {
        const float max = block_max(logits + start, std::min(BLOCK, n - start));
        if (max > best) {
            best = max;
            best_block = start;
        }
    }
    const float * block = logits + best_block;
    return static_cast<int32_t>(std::find(block, logits + std::min(n, best_block + BLOCK), best) - logits);
}

// Best logit first; equal logits by lower token id, so that results never depend on the algorithm.
inline bool better(const llama_token_data & a, const llama_token_data & b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The k best of a row, best first: a heap of k, into which only blocks with something better are looked at.
inline void best_of(const float * logits, int32_t n, int32_t k, std::vector<llama_token_data> & out) {
    out.clear();
    for (int32_t start = 0; start < n; start += BLOCK) {
        const int32_t end = std::min(n, start + BLOCK);
        const bool is_full = static_cast<int32_t>(out.size()) == k;
        if (is_full && !(block_max(logits + start, end - start) > out.front().logit)) continue;
        for (int32_t id = start; id < end; id++) {
            const llama_token_data candidate{id, logits[id], 0.0f};
            if (static_cast<int32_t>(out.size()) < k) {
                out.push_back(candidate);
                std::push_heap(out.begin(), out.end(), better);
            } else if (logits[id] > out.front().logit) {
                std::pop_heap(out.begin(), out.end(), better);
                out.back() = candidate;
                std::push_heap(out.begin(), out.end(), better);
            }
        }
    }
    std::sort_heap(out.begin(), out.end(), better);
}

// Log of the sum of exponentials of a row, the denominator of its softmax.
inline double log_sum_exp(const float * logits, int32_t n, float max) {
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += std::exp(logits[i] - max);
    return max + std::log(sum);
}

}  // namespace cria
