// How sequences hold cells.
//
// A cell of llama.cpp belongs to any number of sequences, so sharing copies nothing. Sliding windows are different:
//
//   - A cell that only one sequence holds, and that has left its window, is taken for other tokens, even where the
//     memory was made for all cells and has empty ones. So where all are to be kept, each sequence has a twin: a second
//     id that always holds the same cells. They cost nothing in a step, as attention looks at the first id only.
//   - A state is saved without cells outside of the window. So it is saved in pieces no longer than a window.
//   - A cell that several sequences hold is never taken, not even when it has left the windows of all. Where the memory
//     has room for one window of each sequence only, it would soon be full. So there a copy gets a window of its own.
#include "sequences.hpp"

#include <algorithm>
#include <cstring>

#include "context.hpp"

namespace cria {

namespace {

// Only used to save and restore, see cria.h.
constexpr llama_seq_id STAGING = 0;

// What a state begins with. Then come the pieces, each with its size in front.
struct StateHeader {
    uint64_t mark;
    uint64_t window;  // that the pieces are cut to, 0 where there is one piece
    uint64_t pieces;
};

constexpr uint64_t STATE_MARK = 0x0165746174537243;
constexpr size_t WORD = sizeof(uint64_t);
constexpr const char * MISMATCH = "the state does not fit this context";

// The twin of a sequence has its id and this.
llama_seq_id twin_offset() { return static_cast<llama_seq_id>(llama_max_parallel_sequences() / 2); }

}  // namespace

Sequences::Sequences(const Model & model, llama_context * ctx, const llama_context_params & params, int32_t pins)
    : model_(model), ctx_(ctx), memory_(llama_get_memory(ctx)), n_seq_max_(static_cast<int32_t>(params.n_seq_max)) {
    if (!params.embeddings) removal_ = common_context_can_seq_rm(ctx);
    classify(params, pins);
    const size_t batch = llama_n_batch(ctx);
    const auto each = static_cast<size_t>(owners());
    ids_.assign(batch * each, 0);
    id_counts_.assign(batch, owners());
    for (size_t i = 0; i < batch; i++) id_pointers_.push_back(ids_.data() + i * each);
}

// A unified cache of plain cells takes any id up to 255, whatever n_seq_max is, and shares any cell. A sliding
// window that is not kept whole loses what it leaves behind, and a recurrent state has no parts.
void Sequences::classify(const llama_context_params & params, int32_t pins) {
    const bool has_states = llama_model_is_recurrent(model_.model) || llama_model_is_hybrid(model_.model);
    const int32_t window = llama_model_n_swa(model_.model);
    const bool is_complete = window == 0 || params.swa_full;
    shares_prefixes_ =
        memory_ != nullptr && removal_ == COMMON_CONTEXT_SEQ_RM_TYPE_PART && !has_states && is_complete;
    count_ = n_seq_max_;
    const int64_t room = static_cast<int64_t>(window) * n_seq_max_ + params.n_batch;
    has_own_windows_ = !is_complete && room < llama_n_ctx(ctx_);
    if (!shares_prefixes_) return;
    window_ = window;
    count_ = std::min(n_seq_max_ + pins, window > 0 ? twin_offset() : n_seq_max_ + pins);
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
    const int32_t each = owners();
    for (int32_t i = 0; i < batch.n_tokens; i++) {
        for (int32_t k = 0; k < each; k++) ids_[i * each + k] = sequences[i] + k * twin_offset();
    }
    batch.n_seq_id = id_counts_.data();
    batch.seq_id = id_pointers_.data();
}

// llama.cpp takes the tokens of a failed step out of the first id of each only.
void Sequences::leave(const llama_batch & batch, const int32_t * sequences) {
    if (owners() == 1) return;
    for (int32_t i = 0; i < batch.n_tokens; i++) {
        const llama_pos end = llama_memory_seq_pos_max(memory_, sequences[i]) + 1;
        llama_memory_seq_rm(memory_, sequences[i] + twin_offset(), end, -1);
    }
}

// ---- cells

bool Sequences::remove(int32_t sequence, int32_t p0, int32_t p1) {
    require(sequence);
    if (memory_ == nullptr || !llama_memory_seq_rm(memory_, sequence, p0, p1)) return false;
    return owners() == 1 || llama_memory_seq_rm(memory_, sequence + twin_offset(), p0, p1);
}

void Sequences::copy(int32_t source, int32_t target, int32_t p0, int32_t p1) {
    require(source);
    require(target);
    require_memory();
    if (!shares_prefixes_ && (p0 > 0 || p1 >= 0)) fail_state("this kind of memory can only copy whole sequences");
    for (int32_t k = 0; k < owners(); k++) {
        llama_memory_seq_cp(memory_, source, target + k * twin_offset(), p0, p1);
    }
    if (has_own_windows_) copy_window(source, target);
}

// The part of a state that can be read alone: what is in the window and, in hybrid models, the recurrent state.
void Sequences::copy_window(int32_t source, int32_t target) {
    constexpr llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    std::vector<uint8_t> data(llama_state_seq_get_size_ext(ctx_, source, flags));
    const bool is_copied =
        llama_state_seq_get_data_ext(ctx_, data.data(), data.size(), source, flags) == data.size() &&
        llama_state_seq_set_data_ext(ctx_, data.data(), data.size(), target, flags) == data.size();
    if (is_copied) return;
    remove(target, -1, -1);
    fail_native("the window of a sequence could not be copied");
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

void Sequences::require_part(int32_t sequence, int32_t p0, int32_t p1) const {
    require(sequence);
    require_memory();
    if (!shares_prefixes_) {
        if (p0 != 0 || p1 != -1) fail_state("this kind of memory has the state of whole sequences only");
        return;
    }
    if (sequence == STAGING) fail_state("sequence 0 is used to save and restore others");
    if (p0 < 0 || p1 <= p0) {
        fail_argument("positions are " + std::to_string(p0) + " to " + std::to_string(p1) +
                      ", expected a part of the sequence");
    }
}

// Calls body with an id that holds a part of a sequence or, one after the other, pieces of it that can be saved whole.
// llama.cpp saves all that an id holds, and knows which cells that is only for ids below n_seq_max.
template <typename F> void Sequences::each_piece(int32_t sequence, int32_t p0, int32_t p1, F && body) {
    if (!shares_prefixes_) return body(sequence);
    for (llama_pos begin = p0; begin < p1;) {
        const llama_pos end = window_ == 0 ? p1 : std::min(p1, (begin / window_ + 1) * window_);
        llama_memory_seq_cp(memory_, sequence, STAGING, begin, end);
        body(STAGING);
        llama_memory_seq_rm(memory_, STAGING, -1, -1);
        begin = end;
    }
}

size_t Sequences::state_size(int32_t sequence, int32_t p0, int32_t p1) {
    require_part(sequence, p0, p1);
    size_t size = sizeof(StateHeader);
    each_piece(sequence, p0, p1, [&](llama_seq_id id) { size += WORD + llama_state_seq_get_size_ext(ctx_, id, 0); });
    return size;
}

size_t Sequences::save(int32_t sequence, int32_t p0, int32_t p1, uint8_t * data, size_t capacity) {
    require_part(sequence, p0, p1);
    StateHeader header{STATE_MARK, static_cast<uint64_t>(window_), 0};
    size_t end = sizeof(header);
    bool fits = end <= capacity;
    each_piece(sequence, p0, p1, [&](llama_seq_id id) {
        fits = fits && capacity - end > WORD;
        if (!fits) return;
        const uint64_t size = llama_state_seq_get_data_ext(ctx_, data + end + WORD, capacity - end - WORD, id, 0);
        fits = size > 0;
        std::memcpy(data + end, &size, WORD);
        end += WORD + size;
        header.pieces++;
    });
    if (!fits) fail_native("the state of the sequence could not be read");
    std::memcpy(data, &header, sizeof(header));
    return end;
}

size_t Sequences::restore(int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data, size_t length) {
    require_part(sequence, p0, p1);
    const llama_seq_id id = shares_prefixes_ ? STAGING : sequence;
    if (id == sequence) remove(sequence, -1, -1);
    StateHeader header{};
    if (length >= sizeof(header)) std::memcpy(&header, data, sizeof(header));
    if (header.mark != STATE_MARK || header.window != static_cast<uint64_t>(window_)) fail_native(MISMATCH);
    size_t end = sizeof(header);
    try {
        for (uint64_t i = 0; i < header.pieces; i++) {
            uint64_t size = 0;
            if (length - end < WORD) fail_native(MISMATCH);
            std::memcpy(&size, data + end, WORD);
            end += WORD;
            if (length - end < size) fail_native(MISMATCH);
            read_piece(id, data + end, size);
            if (id != sequence) restore_part(sequence, p0, p1);
            end += size;
        }
        if (id != sequence && llama_memory_seq_pos_max(memory_, sequence) < p1 - 1) fail_native(MISMATCH);
    } catch (...) {
        // A memory of several parts (window and full attention, recurrent and attention) may have read some of it.
        llama_memory_seq_rm(memory_, id, -1, -1);
        remove(sequence, shares_prefixes_ ? p0 : -1, -1);
        throw;
    }
    return end;
}

void Sequences::read_piece(llama_seq_id id, const uint8_t * data, size_t length) {
    LogCapture capture;
    if (llama_state_seq_set_data_ext(ctx_, data, length, id, 0) != length) fail_native(capture.text(MISMATCH));
}

// Lets a sequence have what it lacks of positions p0 to p1 - 1 from the piece that was read.
void Sequences::restore_part(int32_t sequence, int32_t p0, int32_t p1) {
    const llama_pos begin = std::max(p0, llama_memory_seq_pos_max(memory_, sequence) + 1);
    const llama_pos end = std::min(p1, llama_memory_seq_pos_max(memory_, STAGING) + 1);
    if (end > begin) {
        if (llama_memory_seq_pos_min(memory_, STAGING) > begin) fail_native(MISMATCH);
        for (int32_t k = 0; k < owners(); k++) {
            llama_memory_seq_cp(memory_, STAGING, sequence + k * twin_offset(), begin, end);
        }
    }
    llama_memory_seq_rm(memory_, STAGING, -1, -1);
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

int64_t cria_state_size(int32_t context, int32_t sequence, int32_t p0, int32_t p1) {
    return between_steps<int64_t>(context, [&](Sequences & all) { return all.state_size(sequence, p0, p1); });
}

int64_t cria_state_get(int32_t context, int32_t sequence, int32_t p0, int32_t p1, uint8_t * data, int64_t capacity) {
    return between_steps<int64_t>(context, [&](Sequences & all) {
        if (capacity < 0) fail_argument("capacity is negative");
        return all.save(sequence, p0, p1, data, static_cast<size_t>(capacity));
    });
}

int64_t cria_state_set(int32_t context, int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data,
                       int64_t length) {
    return between_steps<int64_t>(context, [&](Sequences & all) {
        if (length < 0) fail_argument("length is negative");
        return all.restore(sequence, p0, p1, data, static_cast<size_t>(length));
    });
}
