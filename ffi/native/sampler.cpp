// Samplers: a chain of llama.cpp samplers built from JSON, with an optional grammar checked by rejection.
//
// The order of the chain and the two-pass grammar check are those of llama.cpp's common sampler; nothing here can
// throw or abort on what a model produces: a row that cannot be sampled gets a status.
#include "internal.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "logit-edits.hpp"
#include "rows.hpp"

namespace cria {

namespace {

constexpr int32_t STATUS_GRAMMAR_STUCK = 2;
constexpr int32_t STATUS_NOT_FINITE = 3;
constexpr int32_t STATUS_FAILED = 4;

// Above this, choosing the best k by a heap costs more than llama.cpp's bucket sort.
constexpr int32_t HEAP_K_MAX = 256;

// e^-30 times the largest vocabulary is still nothing beside 1.
constexpr float NEGLIGIBLE = 30.0f;

// Most nuclei are smaller. Few are between the second size that is tried and the whole vocabulary.
constexpr size_t NUCLEUS_FIRST = 64;
constexpr size_t NUCLEUS_GROWTH = 64;

float number(const common_json & config, const char * key, float fallback) {
    const float value = config.value<float>(key, fallback);
    if (!std::isfinite(value)) fail_argument(std::string(key) + " is not a finite number");
    return value;
}

std::vector<llama_logit_bias> biases(const common_json & config, const Model & model) {
    std::vector<llama_logit_bias> list;
    if (config.contains("logit_bias")) {
        for (const auto & item : config.at("logit_bias").items()) {
            const int token = item.value().at(0).get<int>();
            if (token < 0 || token >= model.n_vocab) {
                fail_argument("logit_bias names token " + std::to_string(token) + ", the vocabulary has " +
                              std::to_string(model.n_vocab));
            }
            list.push_back({token, item.value().at(1).get<float>()});
        }
    }
    int32_t count = 0;
    const llama_token * suppressed = llama_vocab_get_suppress_tokens(model.vocab, &count);
    for (int32_t i = 0; i < count; i++) list.push_back({suppressed[i], -std::numeric_limits<float>::infinity()});
    return list;
}

}  // namespace

class ChainSampler final : public Sampler {
  public:
    ChainSampler(std::shared_ptr<Model> model, const common_json & config)
        : model_(std::move(model)), chain_(llama_sampler_chain_init(llama_sampler_chain_default_params())) {
        build(config);
    }

    ChainSampler(const ChainSampler & other)
        : model_(other.model_), chain_(llama_sampler_clone(other.chain_.get())),
          grammar_(other.grammar_ ? llama_sampler_clone(other.grammar_.get()) : nullptr), edits_(other.edits_),
          greedy_(other.greedy_),
          first_p_(other.first_p_), first_k_(other.first_k_) {}

    std::shared_ptr<Model> model() const override { return model_; }

    void reset() {
        edits_.reset();
        llama_sampler_reset(chain_.get());
        if (grammar_) llama_sampler_reset(grammar_.get());
    }

    void accept(llama_token token) {
        edits_.accept(token);
        llama_sampler_accept(chain_.get(), token);
    }

    void set_grammar(const std::string & gbnf, const std::string & prefill) {
        if (gbnf.compare(0, 11, "%llguidance") == 0) fail_argument("llguidance grammars are not supported, use GBNF");
        LogCapture capture;
        SamplerPtr grammar(llama_sampler_init_grammar(model_->vocab, gbnf.c_str(), "root"));
        if (!grammar) fail_argument("the grammar could not be parsed: " + capture.text("syntax error"));
        if (!prefill.empty()) {
            for (llama_token token : tokenize(model_->vocab, prefill, false, true)) {
                if (!allows(grammar.get(), token)) fail_argument("the grammar does not allow the text so far");
                llama_sampler_accept(grammar.get(), token);
            }
        }
        grammar_ = std::move(grammar);
    }

    void draw(float * logits, Draw & draw) override {
        try {
            draw.token = pick(logits, draw.status);
            if (draw.status == 0 && draw.top_count >= 0) logprobs(logits, draw);
        } catch (const std::exception &) {
            draw.status = STATUS_FAILED;
        }
    }

  private:
    std::shared_ptr<Model> model_;
    SamplerPtr chain_;
    SamplerPtr grammar_;
    LogitEdits edits_;       // come before the chain
    bool greedy_ = false;    // nothing in the chain but the choice of the best logit
    float first_p_ = 1.0f;   // below 1: top_p is done here, before the chain, over what the chain begins with
    int32_t first_k_ = 0;    // the chain starts with top_k: only that many candidates are needed
    std::vector<llama_token_data> candidates_;

    void add(llama_sampler * sampler) { llama_sampler_chain_add(chain_.get(), sampler); }

    void build(const common_json & config) {
        const uint32_t seed = config.contains("seed") ? config.at("seed").get<unsigned int>() : LLAMA_DEFAULT_SEED;
        const float temperature = number(config, "temperature", 0.8f);
        const bool sees_all = add_editors(config);
        if (temperature <= 0.0f && !config.contains("mirostat")) {
            greedy_ = !sees_all;
            add(llama_sampler_init_greedy());
            return;
        }
        const int mirostat = config.value<int>("mirostat", 0);
        if (mirostat != 0) {
            const float tau = number(config, "mirostat_tau", 5.0f);
            const float eta = number(config, "mirostat_eta", 0.1f);
            add(llama_sampler_init_temp(temperature));
            add(mirostat == 1 ? llama_sampler_init_mirostat(model_->n_vocab, seed, tau, eta, 100)
                              : llama_sampler_init_mirostat_v2(seed, tau, eta));
            return;
        }
        add_filters(config, temperature, seed, sees_all);
    }

    // What changes logits. True when it is in the chain, which then has to begin with the whole vocabulary: which
    // tokens DRY changes is known to nobody else.
    bool add_editors(const common_json & config) {
        auto bias = biases(config, *model_);
        const float repeat = number(config, "repeat_penalty", 1.0f);
        const float frequency = number(config, "frequency_penalty", 0.0f);
        const float presence = number(config, "presence_penalty", 0.0f);
        const int last_n = config.value<int>("repeat_last_n", 64);
        if (repeat <= 0.0f) fail_argument("repeat_penalty must be above 0");
        if (last_n < 0) fail_argument("repeat_last_n must not be negative");
        SamplerPtr penalties;
        if (last_n > 0 && (repeat != 1.0f || frequency != 0.0f || presence != 0.0f)) {
            penalties.reset(llama_sampler_init_penalties(model_->n_vocab, last_n, repeat, frequency, presence));
        }
        const float dry = number(config, "dry_multiplier", 0.0f);
        if (dry <= 0.0f) {
            edits_.set_biases(std::move(bias));
            edits_.set_penalties(std::move(penalties), static_cast<size_t>(last_n));
            return false;
        }
        if (!bias.empty()) {
            add(llama_sampler_init_logit_bias(model_->n_vocab, static_cast<int32_t>(bias.size()), bias.data()));
        }
        if (penalties) add(penalties.release());
        add_dry(config, dry);
        return true;
    }

    void add_dry(const common_json & config, float multiplier) {
        std::vector<std::string> breakers = {"\n", ":", "\"", "*"};
        if (config.contains("dry_sequence_breakers")) {
            breakers = config.at("dry_sequence_breakers").get<std::vector<std::string>>();
        }
        std::vector<const char *> pointers;
        for (const std::string & breaker : breakers) pointers.push_back(breaker.c_str());
        const int last_n = config.value<int>("dry_penalty_last_n", 64);
        if (last_n < 0) fail_argument("dry_penalty_last_n must not be negative");
        add(llama_sampler_init_dry(model_->vocab, multiplier, number(config, "dry_base", 1.75f),
                                   config.value<int>("dry_allowed_length", 2), last_n, pointers.data(),
                                   pointers.size()));
    }

    void add_filters(const common_json & config, float temperature, uint32_t seed, bool sees_all) {
        const size_t keep = config.value<unsigned int>("min_keep", 0);
        const float sigma = number(config, "top_n_sigma", -1.0f);
        const int top_k = config.value<int>("top_k", 40);
        const float typical = number(config, "typical_p", 1.0f);
        const float top_p = number(config, "top_p", 1.0f);
        const float min_p = number(config, "min_p", 0.0f);
        const float xtc = number(config, "xtc_probability", 0.0f);
        const bool capped = top_k > 0 && top_k <= HEAP_K_MAX && top_k < model_->n_vocab;
        first_k_ = capped && !sees_all && sigma <= 0.0f ? top_k : 0;
        if (sigma > 0.0f) add(llama_sampler_init_top_n_sigma(sigma));
        if (top_k > 0) add(llama_sampler_init_top_k(top_k));
        if (typical < 1.0f) add(llama_sampler_init_typical(typical, keep));
        const bool is_uncapped = top_k <= 0 || top_k >= model_->n_vocab;
        const bool is_first = is_uncapped && !sees_all && sigma <= 0.0f && typical >= 1.0f && keep <= 1;
        if (is_first) first_p_ = top_p;
        if (top_p < 1.0f && !is_first) add(llama_sampler_init_top_p(top_p, keep));
        if (min_p > 0.0f) add(llama_sampler_init_min_p(min_p, keep));
        if (xtc > 0.0f) add(llama_sampler_init_xtc(xtc, number(config, "xtc_threshold", 0.1f), keep, seed));
        add(llama_sampler_init_temp_ext(temperature, number(config, "dynatemp_range", 0.0f),
                                        number(config, "dynatemp_exponent", 1.0f)));
        add(llama_sampler_init_dist(seed));
    }

    // Would the grammar take this token next? Asking first is the only safe way: accepting a wrong one throws.
    static bool allows(llama_sampler * grammar, llama_token token) {
        llama_token_data one{token, 1.0f, 0.0f};
        llama_token_data_array array{&one, 1, -1, false};
        llama_sampler_apply(grammar, &array);
        return one.logit != -std::numeric_limits<float>::infinity();
    }

    llama_token pick(float * logits, int32_t & status) {
        const EditedRow row(edits_, logits);
        const int32_t best = best_index(logits, model_->n_vocab);
        if (best >= model_->n_vocab || !std::isfinite(logits[best])) {
            status = STATUS_NOT_FINITE;
            return -1;
        }
        llama_token token = greedy_ ? best : from_chain(logits);
        if (grammar_ && !allows(grammar_.get(), token)) token = within_grammar(logits);
        if (token < 0) {
            status = STATUS_GRAMMAR_STUCK;
            return -1;
        }
        accept(token);
        if (grammar_) llama_sampler_accept(grammar_.get(), token);
        return token;
    }

    llama_token from_chain(const float * logits) {
        if (first_k_ > 0) {
            best_of(logits, model_->n_vocab, first_k_, candidates_);
            return apply_chain(true);
        }
        fill_candidates(logits);
        return apply_chain(false);
    }

    // Second try: the grammar strikes out what it does not allow, then the chain chooses. -1 when nothing is left.
    llama_token within_grammar(const float * logits) {
        fill_candidates(logits);
        llama_token_data_array array{candidates_.data(), candidates_.size(), -1, false};
        llama_sampler_apply(grammar_.get(), &array);
        const float impossible = -std::numeric_limits<float>::infinity();
        const auto end = std::remove_if(candidates_.begin(), candidates_.end(),
                                        [&](const llama_token_data & c) { return c.logit == impossible; });
        candidates_.erase(end, candidates_.end());
        return candidates_.empty() ? -1 : apply_chain(false);
    }

    // Values that are not numbers cannot be sorted.
    void fill_candidates(const float * logits) {
        candidates_.resize(static_cast<size_t>(model_->n_vocab));
        for (llama_token id = 0; id < model_->n_vocab; id++) {
            const float logit = logits[id];
            candidates_[id] = {id, std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit, 0.0f};
        }
    }

    // top_p without a sort of the whole vocabulary, which takes a hundred times as long: sorts as many of the best as
    // the sum of probabilities needs.
    void keep_nucleus() {
        float max = -std::numeric_limits<float>::infinity();
        for (const auto & candidate : candidates_) max = std::max(max, candidate.logit);
        double sum = 0.0;
        for (const auto & candidate : candidates_) {
            if (candidate.logit > max - NEGLIGIBLE) sum += std::exp(candidate.logit - max);
        }
        double reached = 0.0;
        size_t sorted = 0;
        for (size_t count = NUCLEUS_FIRST; sorted < candidates_.size(); count *= NUCLEUS_GROWTH) {
            const auto first = candidates_.begin() + sorted;
            const auto last = candidates_.begin() + std::min(count, candidates_.size());
            if (last != candidates_.end()) std::nth_element(first, last, candidates_.end(), better);
            std::sort(first, last, better);
            const size_t end = last - candidates_.begin();
            for (; sorted < end; sorted++) {
                reached += std::exp(candidates_[sorted].logit - max) / sum;
                if (reached < first_p_) continue;
                candidates_.resize(sorted + 1);
                return;
            }
        }
    }

    llama_token apply_chain(bool sorted) {
        if (first_p_ < 1.0f) {
            keep_nucleus();
            sorted = true;
        }
        llama_token_data_array array{candidates_.data(), candidates_.size(), -1, sorted};
        llama_sampler_apply(chain_.get(), &array);
        if (array.selected < 0 || array.selected >= static_cast<int64_t>(array.size)) {
            fail_native("the sampler chain selected no token");
        }
        return array.data[array.selected].id;
    }

    // Log-probabilities before any sampler: the model's own distribution, as the APIs define them.
    void logprobs(const float * logits, Draw & draw) {
        const float max = logits[best_index(logits, model_->n_vocab)];
        const double denominator = log_sum_exp(logits, model_->n_vocab, max);
        draw.logprob = static_cast<float>(logits[draw.token] - denominator);
        const int32_t count = std::min({draw.top_count, draw.top_capacity, model_->n_vocab});
        std::fill(draw.top_token, draw.top_token + draw.top_capacity, -1);
        if (count <= 0) return;
        best_of(logits, model_->n_vocab, count, candidates_);
        for (int32_t i = 0; i < count; i++) {
            draw.top_token[i] = candidates_[i].id;
            draw.top_logprob[i] = static_cast<float>(candidates_[i].logit - denominator);
        }
    }
};

namespace {

Registry<ChainSampler> & samplers() {
    static Registry<ChainSampler> instance("sampler");
    return instance;
}

}  // namespace

std::shared_ptr<Sampler> sampler_of(int32_t handle) { return samplers().get(handle); }

}  // namespace cria

using namespace cria;

int32_t cria_sampler_new(int32_t model, const uint8_t * json, int32_t length) {
    return guarded([&] {
        return samplers().add(std::make_shared<ChainSampler>(models().get(model), in_json(json, length)));
    });
}

int32_t cria_sampler_free(int32_t sampler) {
    return guarded([&]() -> int32_t {
        samplers().take(sampler);
        return CRIA_OK;
    });
}

int32_t cria_sampler_reset(int32_t sampler) {
    return guarded([&]() -> int32_t {
        samplers().get(sampler)->reset();
        return CRIA_OK;
    });
}

int32_t cria_sampler_clone(int32_t sampler) {
    return guarded([&] { return samplers().add(std::make_shared<ChainSampler>(*samplers().get(sampler))); });
}

int32_t cria_sampler_accept(int32_t sampler, const int32_t * tokens, int32_t count) {
    return guarded([&]() -> int32_t {
        auto s = samplers().get(sampler);
        for (int32_t i = 0; i < count; i++) {
            if (tokens[i] < 0 || tokens[i] >= s->model()->n_vocab) fail_argument("a token is not in the vocabulary");
            s->accept(tokens[i]);
        }
        return CRIA_OK;
    });
}

int32_t cria_sampler_grammar(int32_t sampler, const uint8_t * gbnf, int32_t gbnf_length, const uint8_t * prefill,
                             int32_t prefill_length) {
    return guarded([&]() -> int32_t {
        samplers().get(sampler)->set_grammar(in_text(gbnf, gbnf_length), in_text(prefill, prefill_length));
        return CRIA_OK;
    });
}
