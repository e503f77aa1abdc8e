// Makes golden.json: what Go's own text/template makes of many templates, over data that is written beside them.
//
//	go run tests/templates/*.go > tests/templates/golden.json
//
// Only this program needs Go; the tests read the file.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"text/template"
)

// Shapes like those of a chat.
type call struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Index     int       `json:"index"`
	Name      string    `json:"name"`
	Arguments arguments `json:"arguments"`
}

type arguments map[string]any

func (a arguments) String() string { return marshal(a) }

type message struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	Thinking  string `json:"thinking,omitempty"`
	ToolCalls []call `json:"tool_calls,omitempty"`
}

type tools []tool

func (t tools) String() string { return marshal(t) }

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string              `json:"name"`
		Description string              `json:"description"`
		Parameters  map[string]property `json:"parameters"`
	} `json:"function"`
}

func (t tool) String() string { return marshal(t) }

type property struct {
	Type types `json:"type,omitempty"`
	Enum []any `json:"enum,omitempty"`
}

type types []string

func (t types) String() string {
	if len(t) == 1 {
		return t[0]
	}
	return fmt.Sprintf("%v", []string(t))
}

var clock = func() tool {
	t := tool{Type: "function"}
	t.Function.Name = "now"
	t.Function.Parameters = map[string]property{}
	return t
}()

func marshal(v any) string {
	bytes, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(bytes)
}

var weather = func() tool {
	t := tool{Type: "function"}
	t.Function.Name = "get_weather"
	t.Function.Description = "Weather <now> & then"
	t.Function.Parameters = map[string]property{
		"unit": {Type: types{"string", "null"}, Enum: []any{"C", "F", 1.0}},
		"city": {Type: types{"string"}},
	}
	return t
}()

var data = map[string]any{
	"none": nil,
	"all": map[string]any{
		"Empty":  "",
		"Text":   "hello",
		"Quote":  "a \"b\" 'c' <d> & =\\\n\t\x00\x7f",
		"Wide":   "héllo 世界 🙂 \u00a0\u200d\u2028",
		"Zero":   0,
		"Int":    42,
		"Minus":  -7,
		"Float":  1.5,
		"Whole":  2.0,
		"Huge":   1e21,
		"Tiny":   0.000001,
		"Third":  1.0 / 3,
		"True":   true,
		"False":  false,
		"Nil":    nil,
		"List":   []any{1, "two", 3.0, nil, true, []any{"x"}, map[string]any{"k": "v"}},
		"Ints":   []int{3, 1, 2},
		"Texts":  []string{"b", "a", ""},
		"None":   []any{},
		"Map":    map[string]any{"b": 2, "a": "one", "C": nil, "ä": 1.5, "z": map[string]any{"deep": "x"}},
		"Counts": map[string]int{"x": 1, "y": 0},
		"NoMap":  map[string]any{},
		"Struct": message{Role: "user", Content: "hi", ToolCalls: []call{{ID: "1", Function: function{0, "f", arguments{}}}}},
		"Args":   arguments{"city": "Oslo <b>", "days": 3.0, "list": []any{1.0, "a", nil}},
	},
	"chat": map[string]any{
		"System": "You are kind.",
		"Messages": []message{
			{Role: "system", Content: "You are kind."},
			{Role: "user", Content: "Weather in Oslo?"},
			{Role: "assistant", Thinking: "Call it.", ToolCalls: []call{
				{ID: "c1", Function: function{0, "get_weather", arguments{"city": "Oslo", "a": 1.0}}},
				{ID: "c2", Function: function{1, "get_weather", arguments{}}},
			}},
			{Role: "tool", Content: "{\"t\": 21}"},
			{Role: "assistant", Content: "21 degrees."},
			{Role: "user", Content: "Thanks"},
		},
		"Tools": tools{weather, clock},
		"Think": true, "ThinkLevel": "high", "IsThinkSet": true,
		"Response": "", "Prompt": "", "Suffix": "",
	},
	"legacy": map[string]any{"System": "Be brief.", "Prompt": "Why?", "Response": ""},
}

// describe writes a value so that another language can make the same one of it.
func describe(v reflect.Value) any {
	for v.IsValid() && (v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer) {
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	described := map[string]any{}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		described["text"] = s.String()
	}
	described["type"] = v.Type().String()
	switch v.Kind() {
	case reflect.Bool, reflect.String:
		return v.Interface()
	case reflect.Int:
		return map[string]any{"int": strconv.FormatInt(v.Int(), 10)}
	case reflect.Float64:
		return map[string]any{"float": strconv.FormatFloat(v.Float(), 'g', -1, 64)}
	case reflect.Slice:
		items := []any{}
		for i := 0; i < v.Len(); i++ {
			items = append(items, describe(v.Index(i)))
		}
		described["list"] = items
	case reflect.Map:
		entries := []any{}
		for _, key := range v.MapKeys() {
			entries = append(entries, []any{key.String(), describe(v.MapIndex(key))})
		}
		sort.Slice(entries, func(i, j int) bool {
			return entries[i].([]any)[0].(string) < entries[j].([]any)[0].(string)
		})
		described["map"] = entries
		if element := v.Type().Elem(); element.Kind() != reflect.Interface {
			described["zero"] = describe(reflect.Zero(element))
		}
	case reflect.Struct:
		fields := []any{}
		for i := 0; i < v.NumField(); i++ {
			field := v.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, []any{field.Name, name, rest == "omitempty", describe(v.Field(i))})
		}
		described["struct"] = fields
	default:
		panic("cannot describe " + v.Kind().String())
	}
	return described
}

type result struct {
	Data     string  `json:"data"`
	Template string  `json:"template"`
	Output   *string `json:"output,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func run(name, source string) result {
	r := result{Data: name, Template: source}
	t := template.New("t").Option("missingkey=zero").Funcs(template.FuncMap{"json": marshal})
	t, err := t.Parse(source)
	if err == nil {
		var out strings.Builder
		if err = t.Execute(&out, data[name]); err == nil {
			text := out.String()
			r.Output = &text
			return r
		}
	}
	r.Error = err.Error()
	return r
}

func main() {
	described := map[string]any{}
	for name, value := range data {
		described[name] = describe(reflect.ValueOf(value))
	}
	results := []result{}
	seen := map[string]bool{}
	add := func(name string, sources ...string) {
		for _, source := range sources {
			if seen[name+source] {
				continue
			}
			seen[name+source] = true
			results = append(results, run(name, source))
		}
	}
	for _, group := range groups() {
		add(group.data, group.sources...)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	if err := out.Encode(map[string]any{"go": runtime.Version(), "data": described, "cases": results}); err != nil {
		panic(err)
	}
}
