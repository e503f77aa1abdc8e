// Models: loading as a job, facts, vocabulary, tokenisation.
#include "internal.hpp"
#include "view.hpp"

#include <algorithm>
#include <cstring>

namespace cria {

Model::~Model() {
    if (model != nullptr) llama_model_free(model);
}

Registry<Model> & models() {
    static Registry<Model> instance("model");
    return instance;
}

// Tokens that a job made and nobody took yet.
static Registry<std::vector<llama_token>> & token_lists() {
    static Registry<std::vector<llama_token>> instance("list of tokens");
    return instance;
}

std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text, bool add_special,
                                  bool parse_special) {
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) fail_state("the model has no vocabulary");
    if (text.size() > static_cast<size_t>(INT32_MAX) / 2) fail_argument("text is longer than 1 GiB");
    const int32_t length = static_cast<int32_t>(text.size());
    std::vector<llama_token> tokens(text.size() / 3 + 16);
    int32_t count = llama_tokenize(vocab, text.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()),
                                   add_special, parse_special);
    if (count < 0) {
        if (count == INT32_MIN) fail_argument("text has more than 2^31 tokens");
        tokens.resize(static_cast<size_t>(-count));
        count = llama_tokenize(vocab, text.data(), length, tokens.data(), -count, add_special, parse_special);
    }
    if (count < 0) fail_native("the tokenizer gave two different lengths for one text");
    tokens.resize(static_cast<size_t>(count));
    return tokens;
}

namespace {

llama_load_mode load_mode(const std::string & name) {
    if (name == "auto") return LLAMA_LOAD_MODE_AUTO;
    if (name == "none") return LLAMA_LOAD_MODE_NONE;
    if (name == "mmap") return LLAMA_LOAD_MODE_MMAP;
    if (name == "mlock") return LLAMA_LOAD_MODE_MMAP_MLOCK;
    if (name == "direct") return LLAMA_LOAD_MODE_DIRECT_IO;
    fail_argument("load_mode is \"" + name + "\", expected auto, none, mmap, mlock or direct");
}

llama_split_mode split_mode(const std::string & name) {
    if (name == "none") return LLAMA_SPLIT_MODE_NONE;
    if (name == "layer") return LLAMA_SPLIT_MODE_LAYER;
    if (name == "row") return LLAMA_SPLIT_MODE_ROW;
    fail_argument("split_mode is \"" + name + "\", expected none, layer or row");
}

llama_model_kv_override override_of(const common_json & item) {
    llama_model_kv_override o{};
    const std::string key = item.at("key").get<std::string>();
    if (key.empty() || key.size() >= sizeof(o.key)) fail_argument("override key \"" + key + "\" is empty or over 127 bytes");
    std::memcpy(o.key, key.data(), key.size());
    const std::string type = item.at("type").get<std::string>();
    const common_json & value = item.at("value");
    if (type == "int") {
        o.tag = LLAMA_KV_OVERRIDE_TYPE_INT;
        o.val_i64 = value.get<long>();
    } else if (type == "float") {
        o.tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
        o.val_f64 = value.get<double>();
    } else if (type == "bool") {
        o.tag = LLAMA_KV_OVERRIDE_TYPE_BOOL;
        o.val_bool = value.get<bool>();
    } else if (type == "str") {
        o.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
        const std::string text = value.get<std::string>();
        if (text.size() >= sizeof(o.val_str)) fail_argument("override \"" + key + "\" is over 127 bytes");
        std::memcpy(o.val_str, text.data(), text.size());
    } else {
        fail_argument("override type is \"" + type + "\", expected int, float, bool or str");
    }
    return o;
}

// llama_model_params and everything its pointers point at.
struct LoadPlan {
    llama_model_params params = llama_model_default_params();
    std::vector<std::string> paths;
    std::vector<ggml_backend_dev_t> devices;
    std::vector<float> tensor_split;
    std::vector<llama_model_kv_override> overrides;
    std::vector<std::string> adapters;
    std::FILE * view = nullptr;  // read instead of the paths

    LoadPlan() = default;
    LoadPlan(const LoadPlan &) = delete;
    LoadPlan & operator=(const LoadPlan &) = delete;
    ~LoadPlan() { close_view(); }

    void close_view() {
        if (view != nullptr) std::fclose(view);
        view = nullptr;
    }
};

void plan_devices(LoadPlan & plan, const common_json & config) {
    if (config.contains("devices")) {
        for (const std::string & name : config.at("devices").get<std::vector<std::string>>()) {
            ggml_backend_dev_t device = ggml_backend_dev_by_name(name.c_str());
            if (device == nullptr) fail_argument("there is no device \"" + name + "\" on this machine");
            plan.devices.push_back(device);
        }
        plan.devices.push_back(nullptr);
        plan.params.devices = plan.devices.data();
    }
    if (config.contains("tensor_split")) {
        plan.tensor_split = config.at("tensor_split").get<std::vector<float>>();
        plan.tensor_split.resize(llama_max_devices(), 0.0f);
        plan.params.tensor_split = plan.tensor_split.data();
    }
}

std::shared_ptr<LoadPlan> plan_load(const common_json & config, std::string header) {
    auto plan = std::make_shared<LoadPlan>();
    plan->paths = config.at("paths").get<std::vector<std::string>>();
    if (plan->paths.empty()) fail_argument("paths is empty, expected at least one GGUF file");
    if (config.contains("view")) plan->view = open_view(config.at("view"), std::move(header));
    if (config.contains("adapters")) plan->adapters = config.at("adapters").get<std::vector<std::string>>();
    llama_model_params & p = plan->params;
    p.n_gpu_layers = config.value<int>("gpu_layers", -1);
    p.load_mode = load_mode(config.value("load_mode", "auto"));
    p.split_mode = split_mode(config.value("split_mode", "layer"));
    p.main_gpu = config.value<int>("main_gpu", 0);
    p.vocab_only = config.value<bool>("vocab_only", false);
    p.check_tensors = config.value<bool>("check_tensors", false);
    if (plan->view != nullptr) {
        // Only files can be mapped.
        p.load_mode = LLAMA_LOAD_MODE_NONE;
        p.lazy_mode = LLAMA_LAZY_MODE_OFF;
    }
    plan_devices(*plan, config);
    if (config.contains("overrides")) {
        const common_json & list = config.at("overrides");
        for (const auto & item : list.items()) plan->overrides.push_back(override_of(item.value()));
        plan->overrides.push_back(llama_model_kv_override{});
        p.kv_overrides = plan->overrides.data();
    }
    return plan;
}

llama_model * load_files(const LoadPlan & plan) {
    if (plan.view != nullptr) return llama_model_load_from_file_ptr(plan.view, plan.params);
    std::vector<const char *> paths;
    for (const std::string & path : plan.paths) paths.push_back(path.c_str());
    return paths.size() == 1 ? llama_model_load_from_file(paths[0], plan.params)
                             : llama_model_load_from_splits(paths.data(), paths.size(), plan.params);
}

int32_t load(LoadPlan & plan, Job & job) {
    plan.params.progress_callback = [](float progress, void * user) {
        Job & j = *static_cast<Job *>(user);
        j.progress = progress;
        return !j.cancelled;
    };
    plan.params.progress_callback_user_data = &job;

    LogCapture capture;
    auto model = std::make_shared<Model>();
    model->model = load_files(plan);
    plan.close_view();
    if (job.cancelled) throw Failure(CRIA_ERR_CANCELLED, "loading was cancelled");
    if (model->model == nullptr) fail_logged(capture.text("llama.cpp gave no reason"));
    model->vocab = llama_model_get_vocab(model->model);
    model->n_vocab = llama_vocab_n_tokens(model->vocab);
    model->vocab_only = plan.params.vocab_only;
    load_adapters(*model, plan.adapters);
    return models().add(std::move(model));
}

std::string metadata(const llama_model * model, const char * key) {
    std::vector<char> buffer(256);
    const int32_t length = llama_model_meta_val_str(model, key, buffer.data(), buffer.size());
    return length < 0 ? "" : std::string(buffer.data(), std::min<size_t>(length, buffer.size() - 1));
}

const char * vocab_type_name(enum llama_vocab_type type) {
    switch (type) {
        case LLAMA_VOCAB_TYPE_NONE: return "none";
        case LLAMA_VOCAB_TYPE_SPM: return "spm";
        case LLAMA_VOCAB_TYPE_BPE: return "bpe";
        case LLAMA_VOCAB_TYPE_WPM: return "wpm";
        case LLAMA_VOCAB_TYPE_UGM: return "ugm";
        default: return "other";
    }
}

common_json vocab_json(const Model & m) {
    std::vector<int> eog;
    for (llama_token t = 0; t < m.n_vocab; t++) {
        if (llama_vocab_is_eog(m.vocab, t)) eog.push_back(t);
    }
    return common_json::object({
        {"tokens", m.n_vocab},
        {"type", vocab_type_name(llama_vocab_type(m.vocab))},
        {"add_bos", llama_vocab_get_add_bos(m.vocab)},
        {"add_eos", llama_vocab_get_add_eos(m.vocab)},
        {"bos", llama_vocab_bos(m.vocab)},
        {"eos", llama_vocab_eos(m.vocab)},
        {"eot", llama_vocab_eot(m.vocab)},
        {"eog", eog},
        {"fim_prefix", llama_vocab_fim_pre(m.vocab)},
        {"fim_suffix", llama_vocab_fim_suf(m.vocab)},
        {"fim_middle", llama_vocab_fim_mid(m.vocab)},
    });
}

// Bytes of one piece, growing the buffer when a token is longer than any before it.
int32_t piece_of(const llama_vocab * vocab, llama_token token, std::vector<char> & buffer) {
    int32_t length =
        llama_token_to_piece(vocab, token, buffer.data(), static_cast<int32_t>(buffer.size()), 0, true);
    if (length < 0) {
        buffer.resize(static_cast<size_t>(-length));
        length = llama_token_to_piece(vocab, token, buffer.data(), static_cast<int32_t>(buffer.size()), 0, true);
    }
    return std::max(length, 0);
}

uint8_t attributes_of(const llama_vocab * vocab, llama_token token) {
    uint8_t bits = 0;
    if (llama_vocab_is_control(vocab, token)) bits |= 1;
    if (llama_vocab_is_eog(vocab, token)) bits |= 2;
    if (llama_vocab_get_attr(vocab, token) & (LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_UNUSED)) bits |= 4;
    return bits;
}

}  // namespace

}  // namespace cria

using namespace cria;

int32_t cria_model_load(const uint8_t * json, int32_t length, const uint8_t * header, int32_t header_length) {
    return guarded([&] {
        auto plan = plan_load(in_json(json, length), in_text(header, header_length));
        return start_job([plan](Job & job) { return load(*plan, job); });
    });
}

int32_t cria_model_free(int32_t model) {
    return guarded([&]() -> int32_t {
        if (models().get(model)->contexts > 0) fail_state("the model still has a context; free that first");
        models().take(model);
        return CRIA_OK;
    });
}

int32_t cria_model_info(int32_t model) {
    return guarded([&] {
        auto m = models().get(model);
        const llama_model * l = m->model;
        char description[256] = {0};
        llama_model_desc(l, description, sizeof(description));
        const char * chat_template = llama_model_chat_template(l, nullptr);
        const common_json info = common_json::object({
            {"architecture", metadata(l, "general.architecture")},
            {"description", description},
            {"parameters", llama_model_n_params(l)},
            {"tensor_bytes", llama_model_size(l)},
            {"trained_context", llama_model_n_ctx_train(l)},
            {"embedding_length", llama_model_n_embd_out(l)},
            {"layers", llama_model_n_layer(l)},
            {"window", llama_model_n_swa(l)},
            {"recurrent", llama_model_is_recurrent(l)},
            {"hybrid", llama_model_is_hybrid(l)},
            {"encoder", llama_model_has_encoder(l)},
            {"decoder", llama_model_has_decoder(l)},
            {"diffusion", llama_model_is_diffusion(l)},
            {"chat_template", chat_template == nullptr ? "" : chat_template},
            {"vocab", vocab_json(*m)},
        });
        return give_text(info.dump_safe());
    });
}

int32_t cria_model_pieces(int32_t model, uint8_t * bytes, int32_t capacity, int32_t * offsets, uint8_t * attributes) {
    return guarded([&]() -> int32_t {
        auto m = models().get(model);
        std::vector<char> piece(256);
        int64_t total = 0;
        for (llama_token t = 0; t < m->n_vocab; t++) total += piece_of(m->vocab, t, piece);
        if (total > INT32_MAX) fail_native("the vocabulary has more than 2 GiB of text");
        if (capacity < total) return static_cast<int32_t>(total);
        int32_t offset = 0;
        for (llama_token t = 0; t < m->n_vocab; t++) {
            const int32_t length = piece_of(m->vocab, t, piece);
            std::memcpy(bytes + offset, piece.data(), static_cast<size_t>(length));
            offsets[t] = offset;
            attributes[t] = attributes_of(m->vocab, t);
            offset += length;
        }
        offsets[m->n_vocab] = offset;
        return offset;
    });
}

int32_t cria_tokenize_job(int32_t model, const uint8_t * text, int32_t length, int32_t flags) {
    return guarded([&]() -> int32_t {
        return start_job([m = models().get(model), input = in_text(text, length), flags](Job &) {
            return token_lists().add(std::make_shared<std::vector<llama_token>>(
                cria::tokenize(m->vocab, input, (flags & 1) != 0, (flags & 2) != 0)));
        });
    });
}

int32_t cria_tokens_take(int32_t tokens, int32_t * out, int32_t capacity) {
    return guarded([&]() -> int32_t {
        const auto list = token_lists().get(tokens);
        const int32_t count = static_cast<int32_t>(list->size());
        if (count > capacity) return count;
        std::copy(list->begin(), list->end(), out);
        token_lists().take(tokens);
        return count;
    });
}

int32_t cria_tokenize(int32_t model, const uint8_t * text, int32_t length, int32_t * tokens, int32_t capacity,
                      int32_t flags) {
    return guarded([&]() -> int32_t {
        auto m = models().get(model);
        const auto result = cria::tokenize(m->vocab, in_text(text, length), (flags & 1) != 0, (flags & 2) != 0);
        const int32_t count = static_cast<int32_t>(result.size());
        if (count > 0 && count <= capacity) std::memcpy(tokens, result.data(), result.size() * sizeof(llama_token));
        return count;
    });
}
