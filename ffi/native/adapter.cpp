// LoRA adapters: they belong to a model and act in every context of it.
#include "internal.hpp"

namespace cria {

void load_adapters(Model & model, const std::vector<std::string> & paths) {
    for (const std::string & path : paths) {
        LogCapture capture;
        llama_adapter_lora * adapter = llama_adapter_lora_init(model.model, path.c_str());
        if (adapter == nullptr) fail_native("adapter \"" + path + "\": " + capture.text("llama.cpp gave no reason"));
        model.adapters.push_back(adapter);  // freed with the model
    }
}

void apply_adapters(Model & model, llama_context * context) {
    if (model.adapters.empty()) return;
    std::vector<float> scales(model.adapters.size(), 1.0f);
    if (llama_set_adapters_lora(context, model.adapters.data(), model.adapters.size(), scales.data()) != 0) {
        fail_native("llama.cpp could not apply the adapters of the model");
    }
}

}  // namespace cria
