// Work on model files that needs no loaded model: quantisation.
#include "internal.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "imatrix-loader.h"

namespace cria {
namespace {

llama_ftype file_type(const std::string & name) {
    static const std::map<std::string, llama_ftype> types = {
        {"F32", LLAMA_FTYPE_ALL_F32},
        {"F16", LLAMA_FTYPE_MOSTLY_F16},
        {"BF16", LLAMA_FTYPE_MOSTLY_BF16},
        {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
        {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
        {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
        {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
        {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
        {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
        {"Q2_K_S", LLAMA_FTYPE_MOSTLY_Q2_K_S},
        {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S},
        {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M},
        {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L},
        {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S},
        {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
        {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S},
        {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M},
        {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
        {"IQ1_S", LLAMA_FTYPE_MOSTLY_IQ1_S},
        {"IQ1_M", LLAMA_FTYPE_MOSTLY_IQ1_M},
        {"IQ2_XXS", LLAMA_FTYPE_MOSTLY_IQ2_XXS},
        {"IQ2_XS", LLAMA_FTYPE_MOSTLY_IQ2_XS},
        {"IQ2_S", LLAMA_FTYPE_MOSTLY_IQ2_S},
        {"IQ2_M", LLAMA_FTYPE_MOSTLY_IQ2_M},
        {"IQ3_XXS", LLAMA_FTYPE_MOSTLY_IQ3_XXS},
        {"IQ3_XS", LLAMA_FTYPE_MOSTLY_IQ3_XS},
        {"IQ3_S", LLAMA_FTYPE_MOSTLY_IQ3_S},
        {"IQ3_M", LLAMA_FTYPE_MOSTLY_IQ3_M},
        {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL},
        {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS},
        {"TQ1_0", LLAMA_FTYPE_MOSTLY_TQ1_0},
        {"TQ2_0", LLAMA_FTYPE_MOSTLY_TQ2_0},
        {"MXFP4_MOE", LLAMA_FTYPE_MOSTLY_MXFP4_MOE},
        {"Q1_0", LLAMA_FTYPE_MOSTLY_Q1_0},
        {"Q2_0", LLAMA_FTYPE_MOSTLY_Q2_0},
    };
    const auto found = types.find(name);
    if (found == types.end()) fail_argument("type is \"" + name + "\", expected a file type that llama.cpp can write");
    return found->second;
}

// Mean squared activations per column, which quantisation weighs its errors with.
class ImportanceMatrix {
  public:
    explicit ImportanceMatrix(const std::string & path) {
        LogCapture capture;
        common_imatrix file;
        if (!common_imatrix_load(path, file)) {
            fail_argument("\"" + path + "\" is not an importance matrix: " + capture.text("it cannot be read"));
        }
        for (const auto & [name, entry] : file.entries) means_[name] = mean(entry, file.is_legacy);
        for (const auto & [name, values] : means_) list_.push_back({name.c_str(), values.data(), values.size()});
        list_.push_back({nullptr, nullptr, 0});
    }

    const llama_model_imatrix_data * data() const { return list_.data(); }

  private:
    std::map<std::string, std::vector<float>> means_;
    std::vector<llama_model_imatrix_data> list_;

    // One count for each expert; old files have one in all. Columns that nothing was measured for weigh the same.
    static std::vector<float> mean(const common_imatrix_entry & entry, bool is_legacy) {
        std::vector<float> values = entry.sums;
        if (entry.counts.empty()) return values;
        const size_t groups = is_legacy ? 1 : entry.counts.size();
        const size_t width = values.size() / groups;
        for (size_t i = 0; i < width * groups; i++) {
            const int64_t count = entry.counts[i / width];
            if (count > 0) values[i] /= static_cast<float>(count);
            else if (!is_legacy) values[i] = 1.0f;
        }
        return values;
    }
};

int32_t quantize(const common_json & config, Job & job) {
    const std::string input = config.at("input").get<std::string>();
    const std::string output = config.at("output").get<std::string>();
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = file_type(config.at("type").get<std::string>());
    params.nthread = config.value<int>("threads", 0);
    const std::string matrix_path = config.value("imatrix", "");
    std::unique_ptr<ImportanceMatrix> matrix;
    if (!matrix_path.empty()) {
        matrix = std::make_unique<ImportanceMatrix>(matrix_path);
        params.imatrix = matrix->data();
    }
    // llama.cpp reports progress only in its log: "[  12/ 291] name ...", one line when a tensor is done.
    LineObserver observer([&job](const std::string & line) {
        int done = 0, total = 0;
        if (std::sscanf(line.c_str(), "[%d/%d]", &done, &total) == 2 && total > 0) {
            job.progress = static_cast<float>(done) / static_cast<float>(total);
        }
    });
    LogCapture capture;
    if (llama_model_quantize(input.c_str(), output.c_str(), &params) != 0) {
        fail_native(capture.text("llama.cpp gave no reason"));
    }
    job.progress = 1.0f;
    return CRIA_OK;
}

}  // namespace
}  // namespace cria

using namespace cria;

int32_t cria_quantize(const uint8_t * json, int32_t length) {
    return guarded([&] {
        const common_json config = in_json(json, length);
        return start_job([config](Job & job) { return quantize(config, job); });
    });
}
