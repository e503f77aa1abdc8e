// The sequences of a context: which ids of llama.cpp each has, what can be done with the cells it holds, and its
// state as bytes. Everything here is legal only between steps.
#pragma once

#include "internal.hpp"

#include "common.h"

namespace cria {

class Sequences {
  public:
    // Runs two tokens to find out what the memory can do, which also warms the weights up.
    Sequences(const Model & model, llama_context * ctx, const llama_context_params & params, int32_t pins);

    int32_t count() const { return count_; }
    // The ids before it are for saving and restoring others.
    int32_t first() const { return shares_prefixes_ ? 1 : 0; }
    const char * kind() const;
    const char * removal() const;
    const char * sharing() const;
    bool can_shift() const;

    void require(int32_t sequence) const;

    // Gives each token of a batch the ids of its sequence.
    void enter(llama_batch & batch, const int32_t * sequences);
    // Takes what a step that was not computed left behind.
    void leave(const llama_batch & batch, const int32_t * sequences);

    // Positions p0 to p1 - 1; p1 < 0: to the end.
    bool remove(int32_t sequence, int32_t p0, int32_t p1);
    void copy(int32_t source, int32_t target, int32_t p0, int32_t p1);
    void range(int32_t sequence, int32_t * range) const;
    void clear();

    // Positions p0 to p1 - 1; where only whole sequences can be shared 0 and -1, all of them.
    size_t state_size(int32_t sequence, int32_t p0, int32_t p1);
    size_t save(int32_t sequence, int32_t p0, int32_t p1, uint8_t * data, size_t capacity);
    size_t restore(int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data, size_t length);

  private:
    const Model & model_;
    llama_context * ctx_;
    llama_memory_t memory_;  // null when the model has none
    int32_t n_seq_max_;
    common_context_seq_rm_type removal_ = COMMON_CONTEXT_SEQ_RM_TYPE_NO;
    bool shares_prefixes_ = false;  // any beginning of a sequence can be shared, not only all of it
    int32_t window_ = 0;            // tokens of a window whose cells are all kept; 0 where there is none
    bool has_own_windows_ = false;  // no sequence shares the cells in its window with others
    int32_t count_ = 0;             // legal ids: 0 to count_ - 1

    // What llama_batch points to.
    std::vector<llama_seq_id> ids_;
    std::vector<llama_seq_id *> id_pointers_;
    std::vector<int32_t> id_counts_;

    void classify(const llama_context_params & params, int32_t pins);
    int32_t owners() const { return window_ > 0 ? 2 : 1; }
    void require_memory() const;
    void copy_window(int32_t source, int32_t target);
    void require_part(int32_t sequence, int32_t p0, int32_t p1) const;
    template <typename F> void each_piece(int32_t sequence, int32_t p0, int32_t p1, F && body);
    void read_piece(llama_seq_id id, const uint8_t * data, size_t length);
    void restore_part(int32_t sequence, int32_t p0, int32_t p1);
};

}  // namespace cria
