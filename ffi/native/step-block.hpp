// The arrays of a step, which JavaScript maps once. cria.h documents their order, ffi/context.ts mirrors it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cria {

class StepBlock {
  public:
    static constexpr int RC = 0;
    static constexpr int DECODE_US = 1;
    static constexpr int SAMPLE_US = 2;
    static constexpr int REUSED = 3;
    static constexpr int SAMPLE_THREADS = 4;

    void allocate(size_t batch, size_t rows, size_t top) {
        batch_ = batch;
        rows_ = rows;
        top_ = top;
        fields_.assign(offset(COUNT), 0);
    }

    uint64_t address() const { return reinterpret_cast<uint64_t>(fields_.data()); }
    size_t size() const { return fields_.size(); }

    int32_t * header() { return field(0); }
    int32_t * token() { return field(1); }
    int32_t * position() { return field(2); }
    int32_t * sequence() { return field(3); }
    int32_t * row_index() { return field(4); }
    int32_t * row_sampler() { return field(5); }
    int32_t * row_top() { return field(6); }
    int32_t * out_token() { return field(7); }
    int32_t * out_status() { return field(8); }
    float * out_logprob() { return reinterpret_cast<float *>(field(9)); }
    int32_t * top_token(int32_t row) { return field(10) + row * top_; }
    float * top_logprob(int32_t row) { return reinterpret_cast<float *>(field(11)) + row * top_; }

  private:
    static constexpr int COUNT = 12;
    static constexpr size_t HEADER_FIELDS = 16;

    size_t batch_ = 0;
    size_t rows_ = 0;
    size_t top_ = 0;
    std::vector<int32_t> fields_;

    size_t offset(int index) const {
        const size_t sizes[COUNT] = {HEADER_FIELDS, batch_, batch_, batch_, rows_, rows_, rows_, rows_, rows_, rows_,
                                     rows_ * top_, rows_ * top_};
        size_t sum = 0;
        for (int i = 0; i < index; i++) sum += sizes[i];
        return sum;
    }

    int32_t * field(int index) { return fields_.data() + offset(index); }
};

}  // namespace cria
