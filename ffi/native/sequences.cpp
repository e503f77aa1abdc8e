#include "sequences.hpp"

#include <algorithm>
#include <cstring>

#include "context.hpp"

namespace cria {

namespace {

// Only used to save and restore, see cria.h.
constexpr llama_seq_id STAGING = 0;

}  // namespace

Sequences::Sequences(const Model & model, llama_context * ctx, const llama_context_params & params, int32_t pins)
    : model_(model), ctx_(ctx), memory_(llama_get_memory(ctx)), n_seq_max_(static_cast<int32_t>(params.n_seq_max)) {
    if (!params.embeddings) removal_ = common_context_can_seq_rm(ctx);
    classify(params, pins);
    const size_t batch = llama_n_batch(ctx);
    ids_.assign(batch, 0);
    id_counts_.assign(batch, 1);
    for (llama_seq_id & id : ids_) id_pointers_.push_back(&id);
}

// A unified cache of plain cells takes any id up to 255, whatever n_seq_max is, and shares any cell. A sliding
// window that is not kept whole loses what it leaves behind, and a recurrent state has no parts.
void Sequences::classify(const llama_context_params & params, int32_t pins) {
    const bool has_states = llama_model_is_recurrent(model_.model) || llama_model_is_hybrid(model_.model);
    const bool is_complete = llama_model_n_swa(model_.model) == 0 || params.swa_full;
    shares_prefixes_ =
        memory_ != nullptr && removal_ == COMMON_CONTEXT_SEQ_RM_TYPE_PART && !has_states && is_complete;
    count_ = n_seq_max_ + (shares_prefixes_ ? pins : 0);
}

const char * Sequences::kind() const {
    if (memory_ == nullptr) return "none";
    if (llama_model_is_recurrent(model_.model)) return "recurrent";
    if (llama_model_is_hybrid(model_.model)) return "hybrid";
    return llama_model_n_swa(model_.model) > 0 ? "window" : "dense";
}

const char * Sequences::removal() const {
    switch (removal_) {
        case COMMON_CONTEXT_SEQ_RM_TYPE_PART: return "partial";
        case COMMON_CONTEXT_SEQ_RM_TYPE_FULL: return "full";
        case COMMON_CONTEXT_SEQ_RM_TYPE_RS: return "bounded";
        default: return "none";
    }
}

const char * Sequences::sharing() const {
    if (memory_ == nullptr) return "none";
    return shares_prefixes_ ? "prefix" : "whole";
}

bool Sequences::can_shift() const { return memory_ != nullptr && llama_memory_can_shift(memory_); }

void Sequences::require(int32_t sequence) const {
    if (sequence < 0 || sequence >= count_) {
        fail_argument("sequence is " + std::to_string(sequence) + ", expected 0 to " + std::to_string(count_ - 1));
    }
}

void Sequences::require_memory() const {
    if (memory_ == nullptr) fail_state("this kind of model keeps no memory between steps");
}

// ---- steps

void Sequences::enter(llama_batch & batch, const int32_t * sequences) {
    std::copy(sequences, sequences + batch.n_tokens, ids_.begin());
    batch.n_seq_id = id_counts_.data();
    batch.seq_id = id_pointers_.data();
}

// ---- cells

bool Sequences::remove(int32_t sequence, int32_t p0, int32_t p1) {
    require(sequence);
    return memory_ != nullptr && llama_memory_seq_rm(memory_, sequence, p0, p1);
}

void Sequences::copy(int32_t source, int32_t target, int32_t p0, int32_t p1) {
    require(source);
    require(target);
    require_memory();
    if (!shares_prefixes_ && (p0 > 0 || p1 >= 0)) fail_state("this kind of memory can only copy whole sequences");
    llama_memory_seq_cp(memory_, source, target, p0, p1);
}

void Sequences::range(int32_t sequence, int32_t * range) const {
    require(sequence);
    range[0] = memory_ == nullptr ? -1 : llama_memory_seq_pos_min(memory_, sequence);
    range[1] = memory_ == nullptr ? -1 : llama_memory_seq_pos_max(memory_, sequence);
}

void Sequences::clear() {
    if (memory_ != nullptr) llama_memory_clear(memory_, false);
}

// ---- states

// llama.cpp writes which cells a sequence has only for ids below n_seq_max. Those above are saved under this one.
llama_seq_id Sequences::saved_as(int32_t sequence) const {
    require(sequence);
    require_memory();
    return sequence < n_seq_max_ ? sequence : STAGING;
}

// Calls body with an id that holds a sequence and can be saved.
template <typename F> size_t Sequences::with_saved(int32_t sequence, F && body) {
    const llama_seq_id id = saved_as(sequence);
    if (id == sequence) return body(id);
    llama_memory_seq_cp(memory_, sequence, id, -1, -1);
    const size_t result = body(id);
    llama_memory_seq_rm(memory_, id, -1, -1);
    return result;
}

size_t Sequences::state_size(int32_t sequence) {
    return with_saved(sequence, [&](llama_seq_id id) { return llama_state_seq_get_size_ext(ctx_, id, 0); });
}

size_t Sequences::save(int32_t sequence, uint8_t * data, size_t capacity) {
    const size_t written = with_saved(
        sequence, [&](llama_seq_id id) { return llama_state_seq_get_data_ext(ctx_, data, capacity, id, 0); });
    if (written == 0) fail_native("the state of the sequence could not be read");
    return written;
}

size_t Sequences::restore(int32_t sequence, const uint8_t * data, size_t length) {
    LogCapture capture;
    const llama_seq_id id = saved_as(sequence);
    const size_t read = llama_state_seq_set_data_ext(ctx_, data, length, id, 0);
    if (read == 0) {
        // A memory of several parts (window and full attention, recurrent and attention) may have read some.
        llama_memory_seq_rm(memory_, id, -1, -1);
        fail_native(capture.text("the state does not fit this context"));
    }
    if (id != sequence) {
        llama_memory_seq_rm(memory_, sequence, -1, -1);
        llama_memory_seq_cp(memory_, id, sequence, -1, -1);
        llama_memory_seq_rm(memory_, id, -1, -1);
    }
    return read;
}

}  // namespace cria

using namespace cria;

int32_t cria_sequence_remove(int32_t context, int32_t sequence, int32_t p0, int32_t p1) {
    return between_steps(context, [&](Sequences & all) { return all.remove(sequence, p0, p1) ? 1 : 0; });
}

int32_t cria_sequence_copy(int32_t context, int32_t source, int32_t target, int32_t p0, int32_t p1) {
    return between_steps(context, [&](Sequences & all) {
        all.copy(source, target, p0, p1);
        return CRIA_OK;
    });
}

int32_t cria_sequence_range(int32_t context, int32_t sequence, int32_t * range) {
    return between_steps(context, [&](Sequences & all) {
        all.range(sequence, range);
        return CRIA_OK;
    });
}

int32_t cria_memory_clear(int32_t context) {
    return between_steps(context, [&](Sequences & all) {
        all.clear();
        return CRIA_OK;
    });
}

int64_t cria_state_size(int32_t context, int32_t sequence) {
    return between_steps<int64_t>(context, [&](Sequences & all) { return all.state_size(sequence); });
}

int64_t cria_state_get(int32_t context, int32_t sequence, uint8_t * data, int64_t capacity) {
    return between_steps<int64_t>(context, [&](Sequences & all) {
        if (capacity < 0) fail_argument("capacity is negative");
        return all.save(sequence, data, static_cast<size_t>(capacity));
    });
}

int64_t cria_state_set(int32_t context, int32_t sequence, const uint8_t * data, int64_t length) {
    return between_steps<int64_t>(context, [&](Sequences & all) {
        if (length < 0) fail_argument("length is negative");
        return all.restore(sequence, data, static_cast<size_t>(length));
    });
}
