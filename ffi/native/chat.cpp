// Chat templates, output parsing and JSON schema to GBNF, all by llama.cpp's common library behind JSON in and out.
// Its C++ interface changes every few weeks; this is the only file that knows it.
#include "internal.hpp"

#include "chat.h"
#include "json-schema-to-grammar.h"

namespace cria {

namespace {

struct Chat {
    std::shared_ptr<Model> model;  // keeps the vocabulary alive
    common_chat_templates_ptr templates;
};

struct Parse {
    common_chat_parser_params params;
    std::string text;
    common_chat_msg message;
};

Registry<Chat> & chats() {
    static Registry<Chat> instance("chat template");
    return instance;
}

Registry<Parse> & parses() {
    static Registry<Parse> instance("parser");
    return instance;
}

common_reasoning_format reasoning(bool thinking) {
    return thinking ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
}

common_chat_templates_inputs inputs_of(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools") && !request.at("tools").empty()) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
        inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", "auto"));
        inputs.parallel_tool_calls = true;
    }
    inputs.json_schema = request.value("json_schema", "");
    inputs.enable_thinking = request.value<bool>("thinking", true);
    inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    inputs.add_generation_prompt = request.value<bool>("add_generation_prompt", true);
    if (request.contains("kwargs")) {
        for (const auto & entry : request.at("kwargs").items()) {
            inputs.chat_template_kwargs[entry.key()] = entry.value().dump();
        }
    }
    return inputs;
}

const char * trigger_kind(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: return "pattern";
        default: return "full";
    }
}

common_json params_json(const common_chat_params & params) {
    common_json triggers = common_json::array();
    for (const common_grammar_trigger & trigger : params.grammar_triggers) {
        triggers.push_back({{"kind", trigger_kind(trigger.type)}, {"value", trigger.value}});
    }
    return common_json::object({
        {"prompt", params.prompt},
        {"grammar", params.grammar},
        {"grammar_lazy", params.grammar_lazy},
        {"generation_prompt", params.generation_prompt},
        {"triggers", triggers},
        {"stops", params.additional_stops},
        {"preserved", params.preserved_tokens},
        {"parser", params.parser},
        {"format", static_cast<int>(params.format)},
        {"thinking_start", params.thinking_start_tag},
        {"thinking_ends", params.thinking_end_tags},
    });
}

common_json diffs_json(const std::vector<common_chat_msg_diff> & diffs) {
    common_json list = common_json::array();
    for (const common_chat_msg_diff & diff : diffs) {
        common_json item = common_json::object();
        if (!diff.reasoning_content_delta.empty()) item["thinking"] = diff.reasoning_content_delta;
        if (!diff.content_delta.empty()) item["content"] = diff.content_delta;
        if (diff.tool_call_index != std::string::npos) {
            item["tool"] = common_json::object({
                {"index", static_cast<uint64_t>(diff.tool_call_index)},
                {"id", diff.tool_call_delta.id},
                {"name", diff.tool_call_delta.name},
                {"arguments", diff.tool_call_delta.arguments},
            });
        }
        list.push_back(item);
    }
    return list;
}

}  // namespace

}  // namespace cria

using namespace cria;

int32_t cria_chat_new(const uint8_t * json, int32_t length) {
    return guarded([&] {
        const common_json config = in_json(json, length);
        auto chat = std::make_shared<Chat>();
        const int32_t handle = config.value<int>("model", 0);
        if (handle != 0) chat->model = models().get(handle);
        const std::string source = config.value("template", "");
        if (handle == 0 && source.empty()) fail_argument("a chat needs a model or a template");
        chat->templates = common_chat_templates_init(chat->model ? chat->model->model : nullptr, source,
                                                     config.value("bos", ""), config.value("eos", ""));
        return chats().add(std::move(chat));
    });
}

int32_t cria_chat_free(int32_t chat) {
    return guarded([&]() -> int32_t {
        chats().take(chat);
        return CRIA_OK;
    });
}

int32_t cria_chat_info(int32_t chat) {
    return guarded([&] {
        auto c = chats().get(chat);
        const common_json info = common_json::object({
            {"source", common_chat_templates_source(c->templates.get())},
            {"caps", common_chat_templates_get_caps(c->templates.get())},
            {"thinking", common_chat_templates_support_enable_thinking(c->templates.get())},
        });
        return give_text(info.dump_safe());
    });
}

int32_t cria_chat_apply(int32_t chat, const uint8_t * json, int32_t length) {
    return guarded([&] {
        auto c = chats().get(chat);
        auto inputs = inputs_of(in_json(json, length));
        if (c->model) {
            inputs.add_bos = llama_vocab_get_add_bos(c->model->vocab);
            inputs.add_eos = llama_vocab_get_add_eos(c->model->vocab);
        }
        return give_text(params_json(common_chat_templates_apply(c->templates.get(), inputs)).dump_safe());
    });
}

int32_t cria_parse_new(const uint8_t * json, int32_t length) {
    return guarded([&] {
        const common_json config = in_json(json, length);
        auto parse = std::make_shared<Parse>();
        const int format = config.at("format").get<int>();
        if (format < 0 || format >= COMMON_CHAT_FORMAT_COUNT) fail_argument("format is out of range");
        parse->params.format = static_cast<common_chat_format>(format);
        parse->params.generation_prompt = config.value("generation_prompt", "");
        parse->params.reasoning_format = reasoning(config.value<bool>("thinking", true));
        parse->params.parse_tool_calls = config.value<bool>("tools", false);
        const std::string parser = config.value("parser", "");
        if (!parser.empty()) parse->params.parser.load(parser);
        return parses().add(std::move(parse));
    });
}

int32_t cria_parse_free(int32_t parse) {
    return guarded([&]() -> int32_t {
        parses().take(parse);
        return CRIA_OK;
    });
}

int32_t cria_parse_feed(int32_t parse, const uint8_t * text, int32_t length, int32_t final) {
    return guarded([&] {
        auto p = parses().get(parse);
        p->text += in_text(text, length);
        const common_chat_msg next = common_chat_parse(p->text, final == 0, p->params);
        if (next.empty()) return give_text("[]");
        const auto diffs = common_chat_msg_diff::compute_diffs(p->message, next);
        p->message = next;
        return give_text(diffs_json(diffs).dump_safe());
    });
}

int32_t cria_schema_to_gbnf(const uint8_t * json, int32_t length) {
    return guarded([&] {
        common_json schema = in_json(json, length);
        if (schema.empty()) schema["type"] = "object";
        return give_text(json_schema_to_grammar(schema, true));
    });
}
