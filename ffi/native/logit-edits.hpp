// Biases and penalties: they change the logits of some tokens, out of a vocabulary of a hundred thousand and more.
//
// As samplers of a chain they would go through all of it, and so would what follows them. Here they change the row
// itself, for as long as it is sampled; the numbers are those of llama.cpp's samplers.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "llama.h"

namespace cria {

struct SamplerDeleter {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};

using SamplerPtr = std::unique_ptr<llama_sampler, SamplerDeleter>;

class LogitEdits {
  public:
    LogitEdits() = default;

    LogitEdits(const LogitEdits & other)
        : biases_(other.biases_), last_n_(other.last_n_),
          penalties_(other.penalties_ ? llama_sampler_clone(other.penalties_.get()) : nullptr),
          window_(other.window_), counts_(other.counts_) {}

    void set_biases(std::vector<llama_logit_bias> biases) { biases_ = std::move(biases); }

    // A sampler of llama.cpp that looks back at the last n tokens.
    void set_penalties(SamplerPtr penalties, size_t last_n) {
        penalties_ = std::move(penalties);
        last_n_ = last_n;
    }

    void accept(llama_token token) {
        if (!penalties_) return;
        llama_sampler_accept(penalties_.get(), token);
        window_.push_back(token);
        counts_[token]++;
        if (window_.size() <= last_n_) return;
        const auto oldest = counts_.find(window_.front());
        window_.pop_front();
        if (--oldest->second == 0) counts_.erase(oldest);
    }

    void reset() {
        if (penalties_) llama_sampler_reset(penalties_.get());
        window_.clear();
        counts_.clear();
    }

    // Changes a row until undo(), biases first, as in llama.cpp's chain.
    void apply(float * logits) {
        for (const llama_logit_bias & bias : biases_) set(logits, bias.token, logits[bias.token] + bias.bias);
        if (counts_.empty()) return;
        penalised_.clear();
        for (const auto & entry : counts_) penalised_.push_back({entry.first, logits[entry.first], 0.0f});
        llama_token_data_array array{penalised_.data(), penalised_.size(), -1, false};
        llama_sampler_apply(penalties_.get(), &array);
        for (const llama_token_data & token : penalised_) set(logits, token.id, token.logit);
    }

    void undo(float * logits) {
        for (auto it = originals_.rbegin(); it != originals_.rend(); ++it) logits[it->first] = it->second;
        originals_.clear();
    }

  private:
    std::vector<llama_logit_bias> biases_;
    size_t last_n_ = 0;
    SamplerPtr penalties_;
    std::deque<llama_token> window_;  // what the penalties look back at
    std::unordered_map<llama_token, int32_t> counts_;
    std::vector<llama_token_data> penalised_;
    std::vector<std::pair<llama_token, float>> originals_;  // in the order in which they were changed

    void set(float * logits, llama_token token, float logit) {
        originals_.emplace_back(token, logits[token]);
        logits[token] = logit;
    }
};

// A row with the edits, for the life of this object.
class EditedRow {
  public:
    EditedRow(LogitEdits & edits, float * logits) : edits_(edits), logits_(logits) { edits_.apply(logits_); }
    ~EditedRow() { edits_.undo(logits_); }
    EditedRow(const EditedRow &) = delete;
    EditedRow & operator=(const EditedRow &) = delete;

  private:
    LogitEdits & edits_;
    float * logits_;
};

}  // namespace cria
