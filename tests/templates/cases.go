// The templates of golden.go.
package main

import (
	"fmt"
	"strings"
)

type group struct {
	data    string
	sources []string
}

// values are expressions of every kind.
var values = []string{
	".Empty", ".Text", ".Quote", ".Wide", ".Zero", ".Int", ".Minus", ".Float", ".Whole", ".Huge", ".Tiny", ".Third",
	".True", ".False", ".Nil", ".Missing", ".List", ".Ints", ".Texts", ".None", ".Map", ".Counts", ".NoMap",
	".Struct", ".Args", "nil", "1", "1.0", "-3", `"a"`, "'x'", "true", "`raw`",
}

func groups() []group {
	return []group{
		{"all", printing()},
		{"all", formatting()},
		{"all", comparing()},
		{"all", collections()},
		{"all", control()},
		{"all", literals()},
		{"all", trimming()},
		{"all", named()},
		{"all", broken()},
		{"none", []string{"", "text", "{{.}}", "{{.A}}", "{{.A.B}}", "{{$}}", "{{with .}}x{{else}}y{{end}}", "{{range .}}x{{else}}y{{end}}"}},
		{"chat", chats()},
		{"legacy", legacies()},
	}
}

func printing() (sources []string) {
	for _, value := range values {
		if value != "nil" {
			sources = append(sources, fmt.Sprintf("{{%s}}", value))
		}
		for _, f := range []string{"print", "println", "html", "js", "urlquery", "json", "len", "not"} {
			sources = append(sources, fmt.Sprintf("{{%s %s}}", f, value))
		}
		sources = append(sources,
			fmt.Sprintf("{{if %s}}yes{{else}}no{{end}}", value),
			fmt.Sprintf("{{with %s}}[{{.}}]{{else}}no{{end}}", value),
			fmt.Sprintf("{{$x := %s}}{{$x}}|{{with $x}}{{.}}{{end}}", value),
			fmt.Sprintf("{{or %s \"other\"}}", value),
			fmt.Sprintf("{{and %s \"other\"}}", value),
			fmt.Sprintf("{{%s | printf \"%%v\"}}", value),
		)
	}
	for _, value := range values {
		// Newer Go ranges over integers too.
		if !strings.Contains(" .Zero .Int .Minus 1 -3 'x' ", " "+value+" ") {
			sources = append(sources,
				fmt.Sprintf("{{range %s}}[{{.}}]{{else}}none{{end}}", value),
				fmt.Sprintf("{{range $k, $v := %s}}({{$k}}={{$v}}){{end}}", value),
			)
		}
	}
	return append(sources,
		"{{print 1 2}}", "{{print 1 \"a\" 2 3}}", "{{print \"a\" \"b\"}}", "{{print .List .Map}}", "{{println 1 \"a\" nil}}",
		"{{print}}", "{{println}}", "{{html}}", "{{print nil nil}}", "{{html 1 2 \"<\" nil}}",
		"{{urlquery \"a b&c=d/é?\" 1}}", "{{js \"'\\\"</script>é\\u2028\"}}", "{{.Quote | html | js}}",
	)
}

func formatting() (sources []string) {
	verbs := []string{"v", "+v", "#v", "T", "s", "q", "d", "t", "f", "e", "g", "c", "o", "b", "U", "5d", "-5d|", "05d", "+d", "x", "X", "8.3f", "6s|", "-6s|", ".2s", ".3g", "z"}
	args := []string{".Text", ".Wide", ".Int", ".Minus", ".Float", ".Huge", ".True", ".Nil", ".Ints", ".Texts", ".Map", ".List", ".Args"}
	for _, verb := range verbs {
		for _, arg := range args {
			sources = append(sources, fmt.Sprintf("{{printf \"%%%s\" %s}}", verb, arg))
		}
	}
	return append(sources,
		`{{printf "%s\n\n%s" "a" "b"}}`, `{{printf "%d%%" 5}}`, `{{printf "none"}}`, `{{printf "%s"}}`, `{{printf "%d" 1 2}}`,
		`{{printf "%[2]s %[1]s" "a" "b"}}`, `{{printf "%[3]s" "a"}}`, `{{printf "%[x]s" "a"}}`, `{{printf "%*d" 5 42}}`,
		`{{printf "%-*d|" 5 42}}`, `{{printf "%.*f" 2 3.14159}}`, `{{printf "%*d" "x" 42}}`, `{{printf "%.*d" "x" 42}}`,
		`{{printf "%"}}`, `{{printf "%!" 1}}`, `{{printf "% d|% d" 5 -5}}`, `{{printf "%+q %#q %q" "é" "ab" "a\tb"}}`,
		`{{printf "%x % x %#x %X" "hi" "hi" "hi" "hi"}}`, `{{printf "%c%c" 65 0x4e16}}`, `{{printf "%q" 65}}`,
		`{{printf "%U %#U" 128578 128578}}`, `{{printf "%e %E %g %G" 1.5 1.5 1e20 1e20}}`, `{{printf "%08.3f|%+.2e" 3.14159 12345.678}}`,
		`{{printf "%6.2f|%-8.1f|" 3.14159 2.5}}`, `{{printf "%#x %#o %#b" 255 8 5}}`, `{{printf "%3c|%-3c|" 65 66}}`,
		`{{printf "%t" "x"}}`, `{{printf "%s %v" nil nil}}`, `{{printf "%v" .Missing}}`, `{{printf 1}}`, `{{printf nil}}`,
		`{{printf .Missing}}`, `{{printf .Int}}`, `{{printf .Text}}`, `{{"x" | printf "%s-%s" "y"}}`, `{{.Int | printf "%03d"}}`,
		`{{printf "%010.2f" -3.14159}}`, `{{printf "%5t|%-6t|" true false}}`, `{{printf "%.1q" "abc"}}`, `{{printf "%5q" "a"}}`,
		`{{printf "%v %v" 1e6 123456789.0}}`, `{{printf "%g %.2g %.10g" 100000.0 123456.0 0.00001234}}`, `{{printf "%6v|%-6v|%06v" 1 2 3}}`,
		`{{printf "%6v" .Ints}}`, `{{printf "%+v" .Struct}}`, `{{printf "%v" .Struct}}`, `{{printf "%5T|" 1}}`, `{{printf "%d" .Counts}}`,
		`{{printf "%.0f %.0f %.0f" 0.5 1.5 2.5}}`, `{{printf "%.f" 2.7}}`, `{{printf "%5%|"}}`, `{{printf "%v" 'a'}}`,
		`{{printf "%99d" 1}}`, `{{printf "%.3d|%.0d|%8.3d|" 5 0 7}}`, `{{printf "%x %X" -42 -255}}`, `{{printf "%O" 8}}`, `{{printf "%x %X %.0x %.3x %.3X %.20x" 1.5 -0.1 1.999 0.1 -0.1 1.5}}`,
		`{{printf "%b %x %x %x" 1.5 0.0 5e-324 1.7976931348623157e308}}`, `{{printf "%+x|% x|%20x|%-12x|%012x" 1.5 1.5 1.5 1.5 1.5}}`, `{{printf "%.1x %.2x" 1.96875 1.501953125}}`,
	)
}

func comparing() (sources []string) {
	some := []string{".Text", ".Empty", ".Int", ".Zero", ".Float", ".Whole", ".True", ".Nil", ".Missing", "nil", "42", "2.0", `"hello"`, "true"}
	for _, f := range []string{"eq", "ne", "lt", "ge"} {
		for _, a := range some {
			for _, b := range some {
				sources = append(sources, fmt.Sprintf("{{%s %s %s}}", f, a, b))
			}
		}
	}
	return append(sources,
		"{{le 1 1}}{{le 1 2}}{{le 2 1}}", "{{gt 1 1}}{{gt 1 2}}{{gt 2 1}}", "{{le \"a\" \"b\"}}{{gt \"a\" \"b\"}}", "{{le 1 1.0}}", "{{gt true 1}}",
		"{{eq 1 2 3 1}}", "{{eq .Text \"a\" \"hello\"}}", "{{eq 1}}", "{{eq}}", "{{ne 1}}", "{{lt 1}}", "{{ne 1 2 3}}",
		"{{eq .Map nil}}", "{{eq nil .Map}}", "{{eq .List nil}}", "{{lt .List 1}}", "{{lt \"a\" \"ä\"}}{{lt \"😀\" \"\uffee\"}}",
		"{{and}}", "{{or}}", "{{not}}", "{{not 1 2}}", "{{and 1 0 .Missing.X}}", "{{or 0 1 .Missing.X}}", "{{and 1 2 3}}", "{{or 0 \"\" nil}}",
		"{{1 | and 2}}", "{{0 | or \"\"}}", "{{1 | not}}", "{{and true (not false)}}", "{{or (eq .Int 1) (eq .Int 42)}}",
		"{{if and .True (or .False (eq .Text \"hello\"))}}ok{{end}}", "{{and .Nil}}", "{{or .Nil}}", "{{or nil}}",
	)
}

func collections() (sources []string) {
	return append(sources,
		"{{index .List 0}}", "{{index .List 1}}", "{{index .List 3}}", "{{index .List 6 \"k\"}}", "{{index .List 5 0}}", "{{index .List 7}}",
		"{{index .List 99}}", "{{index .List -1}}", "{{index .List \"a\"}}", "{{index .List nil}}", "{{index .List 1.0}}", "{{index .List}}", "{{index}}",
		"{{index .Map \"a\"}}", "{{index .Map \"nope\"}}", "{{index .Map 1}}", "{{index .Map nil}}", "{{index .Map \"z\" \"deep\"}}", "{{index .Counts \"nope\"}}",
		"{{index .Text 0}}", "{{index .Text 5}}", "{{index .Wide 1}}", "{{index .Int 0}}", "{{index nil 0}}", "{{index .Nil 0}}", "{{index .Struct 0}}",
		"{{index .Map \"C\" \"x\"}}", "{{0 | index .List}}", "{{(index .List 6).k}}", "{{(index .Map \"z\").deep}}",
		"{{slice .Text}}", "{{slice .Text 1}}", "{{slice .Text 1 3}}", "{{slice .Text 1 2 3}}", "{{slice .Text 9}}", "{{slice .Text 3 1}}", "{{slice .Text -1}}",
		"{{slice .Wide 0 3}}", "{{slice .List 1}}", "{{slice .List 1 2}}", "{{slice .Ints 0 2 2}}", "{{slice .Ints 0 2 1}}", "{{slice .Ints 1 2 3 4}}", "{{slice .Ints 4}}",
		"{{slice .Int}}", "{{slice nil}}", "{{slice .Map 1}}", "{{slice .Text \"a\"}}", "{{len (slice .List 2)}}", "{{len (slice .Ints 3)}}",
		"{{len .Wide}}", "{{len \"é\"}}", "{{len 3}}", "{{len nil}}", "{{len .Nil}}", "{{len .Missing}}", "{{len}}", "{{len 1 2}}", "{{.List | len}}",
		"{{call nil}}", "{{call .Text}}", "{{call .Missing 1}}", "{{call}}", "{{call .Text 1 2}}",
		"{{.Map.z.deep}}", "{{.Map.C}}", "{{.Map.C.x}}", "{{.Map.nope}}", "{{.Map.nope.deep}}", "{{(.Map.nope).deep}}", "{{.Map.a.b}}", "{{.Text.x}}", "{{.Int.x}}",
		"{{.Counts.x}}{{.Counts.nope}}", "{{.Struct.Role}}", "{{.Struct.Nope}}", "{{.Struct.ToolCalls}}", "{{range .Struct.ToolCalls}}{{.ID}}{{.Nope}}{{end}}",
		"{{.Map.a 1}}", "{{.Struct.Role 1}}", "{{1 | .Map.a}}", "{{.Args.city}}", "{{.Args.nope}}", "{{range $k, $v := .Args}}{{$k}}:{{$v}};{{end}}",
		"{{json .Struct}}", "{{json .List}}", "{{json .Map}}", "{{json .Args}}", "{{json \"<&>\\u2028\"}}", "{{json 1e21}}{{json 0.0000001}}{{json 1.5}}",
		"{{.List.x}}", "{{$.Map.z.deep}}", "{{$x := .Map}}{{$x.z.deep}}", "{{$x := .Missing}}{{$x.y.z}}|", "{{with .Map}}{{.nope}}{{end}}",
		"{{range .Texts}}[{{.}}]{{end}}", "{{range $i, $t := .Texts}}{{$i}}{{$t}}{{end}}", "{{range .List}}{{with .}}{{.}}{{end}},{{end}}",
	)
}

func control() []string {
	return []string{
		"{{if .True}}a{{end}}", "{{if .False}}a{{end}}", "{{if .False}}a{{else}}b{{end}}", "{{if .False}}a{{else if .True}}b{{else}}c{{end}}",
		"{{if .False}}a{{else if .False}}b{{else if .Int}}c{{else}}d{{end}}", "{{if $x := .Int}}{{$x}}{{end}}", "{{if $x := .Zero}}{{$x}}{{else}}{{$x}}!{{end}}",
		"{{if eq .Text \"hello\"}}y{{end}}", "{{if not .False}}y{{end}}", "{{if .True}}{{if .False}}a{{else}}b{{end}}{{end}}",
		"{{with .Text}}{{.}}{{end}}", "{{with $x := .Text}}{{$x}}{{.}}{{$.Int}}{{end}}", "{{with .Nil}}a{{else}}{{.Int}}{{end}}",
		"{{range .Ints}}{{.}},{{end}}", "{{range $x := .Ints}}{{$x}}{{.}},{{end}}", "{{range $i, $x := .Ints}}{{$i}}{{$x}},{{end}}", "{{range .None}}a{{else}}b{{end}}",
		"{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "{{range .Map}}{{.}};{{end}}", "{{range .Counts}}{{.}}{{end}}", "{{range .Missing}}a{{end}}|",
		"{{range .Ints}}{{if eq . 1}}{{break}}{{end}}{{.}}{{end}}", "{{range .Ints}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{end}}",
		"{{range .Ints}}{{range $.Texts}}{{break}}{{end}}{{.}}{{end}}", "{{range .Ints}}{{with .}}{{if eq . 1}}{{continue}}{{end}}{{end}}{{.}}{{else}}x{{end}}",
		"{{range .Ints}}{{break}}{{else}}none{{end}}|", "{{range $i, $x := .Ints}}{{if $i}}, {{end}}{{$x}}{{end}}",
		"{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "{{$x := 0}}{{range .Ints}}{{$x = .}}{{end}}{{$x}}",
		"{{$last := \"\"}}{{range .Texts}}{{$last = .}}{{end}}[{{$last}}]", "{{$x := .Ints}}{{range $x}}{{.}}{{end}}", "{{$x := 1}}{{$x := 2}}{{$x}}",
		"{{$x := 1 | printf \"%d\"}}{{$x}}", "{{range $x := .Ints}}{{end}}{{with $x := 1}}{{end}}ok", "{{$a := 1}}{{$b := $a}}{{$a = 3}}{{$a}}{{$b}}",
		"{{range .Ints}}{{$x := .}}{{$x}}{{end}}", "{{with 1}}{{with 2}}{{.}}{{end}}{{.}}{{end}}", "{{range $.Ints}}{{len $.Texts}}{{end}}",
		"{{(print 1 2)}}", "{{(1)}}", "{{((.Text))}}", "{{(.Map).a}}", "{{.Text | print | html}}", "{{print (len .Text) (index .Ints 0)}}", "{{1 | print 2 3}}",
		"{{\"a\" | printf \"%s%s\" \"b\" | len}}", "{{print | len}}", "{{.Int | .Text}}", "{{1 | 2}}", "{{.Text 1}}", "{{1 2}}", "{{true 1}}", "{{(1) 2}}", "{{nil}}", "{{nil | print}}", "{{. | len}}",
		"{{$x := 1}}{{$x 2}}", "{{2 | $x}}", "{{nil.a}}", "{{(nil).a}}", "{{print nil.a}}", "{{.Nil.a}}", "{{with .Text}}{{$}}{{end | len}}", "{{true}}{{false}}",
		"{{range 1.5}}{{end}}", "{{range .Text}}{{end}}", "{{range true}}{{end}}", "{{range .Struct}}{{end}}", "{{print 1}}{{/* c */}}{{print 2}}",
		"a\nb{{.Nope.x}}", "{{.Text}}\n{{.Int}}\n  {{.Nil.a.b}}", "é {{.Nil.a.b}}",
	}
}

func literals() (sources []string) {
	for _, literal := range []string{
		"0", "1", "-1", "+1", "007", "0x1F", "0X1f", "0o17", "0b101", "1_000", "0x_1", "1__0", "_1", "1_", "08", "1.5", ".5", "1.", "-.5", "1e3", "1E-3", "1e", "1.5e+2", "0x1p4", "0x1.8p1", "0x1.8", "1e400",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616", "99999999999999999999",
		"'a'", "'\\n'", "'\\''", "'é'", "'世'", "'\\x41'", "'\\u4e16'", "'\\101'", "''", "'ab'", "'\\q'", "1x", "0xg", "1.2.3", "1+2", "--1", "+", "-", ".", "..", "1.e2", "0b12", "0o8",
		`"a\tb\n"`, `"\a\b\f\v\\\""`, `"\x41\u00e9\U0001F642\101"`, `"\xe2\x96\x81"`, `"\q"`, `"\u12"`, `"\ud800"`, `"\400"`, `"'"`, `"\'"`, "\"a\nb\"", "`a\nb\\n\"`", "`a\r\nb`", `""`, "``", `"unclosed`, "`unclosed", "'unclosed",
		"true", "false", "nil", "True", "foo", "$", "$x", "$1", ".1a", ".é", ".a-b", "$x.y",
	} {
		sources = append(sources, fmt.Sprintf("{{%s}}", literal), fmt.Sprintf("{{print %s}}", literal), fmt.Sprintf("{{printf \"%%T %%v\" %s %s}}", literal, literal))
	}
	return sources
}

func trimming() []string {
	return []string{
		"a {{1}} b", "a {{- 1}} b", "a {{1 -}} b", "a {{- 1 -}} b", "a\n\t {{- 1 -}} \r\n b", "{{- 1 -}}", "a {{-1}} b", "a {{1-}} b", "a {{- -1 -}} b", "a {{--1}}",
		"a {{/* c */}} b", "a {{- /* c */}} b", "a {{/* c */ -}} b", "a {{- /* c */ -}} b", "a {{ /* c */}} b", "a {{/* c */ }} b", "a {{/* c}} b", "a {{/* c */", "{{/*\n\n*/}}{{.Nil.a.b}}", "{{/**/}}",
		"a {{- if true}} b {{- end}} c", "a {{if true -}} b {{end -}} c", "{{- range .Ints}} {{.}} {{- end}}", "a\u00a0{{- 1}}", "a {{-\n1\n-}} b", "{{\n1\n}}", "{{ 1 | print\n}}", "{{\t1\r\n}}",
		"}} a }}", "{ { a } }", "{{{1}}}", "{{1}}}", "a{{1}}{{2}}b", "  {{- /* x */ -}}  {{- 1}}", "{{print \"}}\"}}", "{{print `}}`}}", "{{print \"{{\"}}",
	}
}

func named() []string {
	return []string{
		`{{define "x"}}X{{.}}{{end}}{{template "x" 1}}{{template "x" .Text}}{{template "x"}}`, `{{template "x"}}{{define "x"}}late{{end}}`, `{{block "b" .Text}}<{{.}}>{{end}}{{template "b" 2}}`,
		`{{define "x"}}{{$.Int}}{{end}}{{template "x" .}}`, `{{$y := 1}}{{define "x"}}{{$y}}{{end}}`, `{{define "x"}}{{template "y" .}}{{end}}{{define "y"}}{{.Text}}{{end}}{{template "x" .}}`,
		`{{define "x"}}a{{end}}{{define "x"}}b{{end}}{{template "x"}}`, `{{define "x"}} {{end}}{{define "x"}}b{{end}}{{template "x"}}`, `{{define "x"}}b{{end}}{{define "x"}} {{end}}{{template "x"}}`, `{{template "nope"}}`,
		`{{define "x"}}{{.Nope.y}}{{end}}{{template "x" .}}`, `{{define}}{{end}}`, `{{define x}}{{end}}`, `{{define "x" 1}}{{end}}`, `{{define "x"}}`, `{{define "x"}}{{else}}{{end}}`, `{{if true}}{{define "x"}}{{end}}{{end}}`,
		`{{template}}`, `{{template x}}`, `{{template "x" 1 2}}`, "{{template `x`}}{{define `x`}}raw{{end}}", `{{block "b"}}{{end}}`, `{{block}}{{end}}`, `{{block "b" 1}}`, `{{template "x" 1 | print}}{{define "x"}}{{.}}{{end}}`,
		`{{range .Ints}}{{template "x" .}}{{end}}{{define "x"}}({{.}}){{end}}`, `{{range .Ints}}{{block "x" .}}{{break}}{{end}}{{end}}`, `{{define "t"}}self{{end}}a`, `{{define "f"}}{{if gt . 0}}{{.}}{{template "f" 0}}{{else}}!{{end}}{{end}}{{template "f" 3}}`,
	}
}

func broken() []string {
	return []string{
		"{{", "{{}}", "{{ }}", "{{1", "{{if}}", "{{if}}{{end}}", "{{if true}}", "{{if true}}{{else}}", "{{if true}}{{else}}{{else}}{{end}}", "{{end}}", "{{else}}", "{{if true}}{{end}}{{end}}",
		"{{range}}{{end}}", "{{with}}{{end}}", "{{range .Ints}}", "{{break}}", "{{continue}}", "{{if true}}{{break}}{{end}}", "{{range .Ints}}{{break 1}}{{end}}", "{{end 1}}", "{{else 1}}", "{{if true}}{{else 1}}{{end}}",
		"{{foo}}", "{{foo 1}}", "{{print foo}}", "{{$x}}", "{{$x = 1}}", "{{$x := }}", "{{$x :=}}", "{{$x : 1}}", "{{$x, $y := 1}}", "{{range $x, $y, $z := .Ints}}{{end}}", "{{range $x, 1 := .Ints}}{{end}}", "{{range $x,}}{{end}}",
		"{{(1}}", "{{1)}}", "{{()}}", "{{(}}", "{{)}}", "{{((1)}}", "{{print (1}}", "{{1 |}}", "{{| 1}}", "{{1 | | 2}}", "{{1 || 2}}", "{{print | 1}}", "{{print | \"a\"}}", "{{print | .}}", "{{print | nil}}", "{{print | true}}",
		"{{.a.}}", "{{.a..b}}", "{{. a}}", "{{.Text.}}", "{{1.a}}", "{{\"a\".b}}", "{{true.a}}", "{{..a}}", "{{$.}}", "{{@}}", "{{#}}", "{{a!}}", "{{a;b}}", "{{,}}", "{{1,2}}", "{{é}}", "{{.x@}}", "{{$x@}}", "{{🙂}}", "{{\x01}}", "{{a\u00a0b}}",
		"{{=}}", "{{:=}}", "{{1 := 2}}", "{{:}}", "{{[1]}}", "{{.a[0]}}", "{{*}}", "{{&}}", "{{a=b}}", "{{$x=1}}", "{{$x:=1}}{{$x}}", "{{$x :=1}}{{$x}}", "{{$x  :=  1}}{{$x}}", "{{print 1(2)}}", "{{print(1)}}", "{{print \"a\"\"b\"}}", "{{1\"a\"}}", "{{print .a.b.c }}",
		"line\n{{foo}}", "a\n\n{{if true}}\n{{1 |}}", "{{if\ntrue}}{{foo}}{{end}}", "{{\n\n\"abc", "{{1\n\n", "{{print\n(1\n}}", "{{range .Ints}}\n{{else if true}}{{end}}", "{{with 1}}{{else if 2}}{{end}}", "{{if 1}}{{else range}}{{end}}",
		"{{if true}}{{if false}}{{end}}", "{{define \"a\"}}{{define \"b\"}}{{end}}{{end}}", "{{keyword}}", "{{if}}x", "{{template \"a\" }}", "{{averyveryverylongword}}", "{{\"averyverylongstring\" := 1}}", "{{block \"x\" .}}{{else}}{{end}}",
		"{{1 2 3}}", "{{if 1 2}}{{end}}", "{{range 1 2}}{{end}}", "{{and 1 .Nil.x}}", "{{len | 1}}", "{{print .Nil.x.y}}", "{{printf \"%s\" (index .Ints 9)}}", "{{if index .Ints 9}}{{end}}", "{{range index .Ints 9}}{{end}}", "{{with index .Ints 9}}{{end}}", "{{template \"x\" index .Ints 9}}{{define \"x\"}}{{end}}",
	}
}

func chats() []string {
	return []string{
		"{{range .Messages}}<|{{.Role}}|>{{.Content}}\n{{end}}<|assistant|>",
		"{{- range $i, $_ := .Messages }}\n{{- $last := eq (len (slice $.Messages $i)) 1 }}\n{{- if eq .Role \"user\" }}[U]{{ .Content }}{{ if $last }}[A]{{ end }}\n{{- else if eq .Role \"assistant\" }}{{ .Content }}[E]\n{{- end }}\n{{- end }}",
		"{{- if .System }}S:{{ .System }}\n{{ end }}\n{{- range .Messages }}{{- if ne .Role \"system\" }}{{ .Role }}: {{ .Content }}\n{{ end }}{{- end }}",
		"{{- if .Tools }}# Tools\n{{- range .Tools }}\n{{ . }}\n{{- end }}\n{{ end }}{{ .Tools }}", "{{ json .Tools }}|{{ .Tools }}|{{ len .Tools }}",
		"{{- range .Messages }}{{- if .ToolCalls }}<tool_call>{{ range .ToolCalls }}\n{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}{{ end }}\n</tool_call>{{ end }}{{ end }}",
		"{{- range .Messages }}{{- if and .Thinking (eq .Role \"assistant\") }}<think>\n{{ .Thinking }}\n</think>\n{{ end }}{{ .Content }}\n{{- end }}{{- if and $.IsThinkSet (not $.Think) }}/no_think{{ end }}{{ .ThinkLevel }}",
		"{{ range .Tools }}{{ .Function.Name }}({{ range $k, $v := .Function.Parameters }}{{ $k }}: {{ $v.Type }}{{ if $v.Enum }} {{ json $v.Enum }}{{ end }}; {{ end }}){{ end }}",
		"{{ range .Messages }}{{ range $i, $c := .ToolCalls }}{{ $c.ID }}{{ $i }}{{ range $k, $v := $c.Function.Arguments }}{{ $k }}={{ $v }},{{ end }}{{ end }}{{ end }}",
		"{{- $user := \"\" }}{{ range .Messages }}{{ if eq .Role \"user\" }}{{ $user = .Content }}{{ end }}{{ end }}{{ $user }}", "{{ .Messages }}", "{{ json .Messages }}", "{{ range .Messages }}{{ .Nope }}{{ end }}",
		"{{ range .Messages }}{{ printf \"%s\\n\\n%s\" .Role .Content }}{{ break }}{{ end }}", "{{ (index .Messages 1).Content }}", "{{ with index .Messages 0 }}{{ .Role }}{{ end }}",
		"{{- range $index, $message := .Messages }}{{ if gt $index 3 }}{{ continue }}{{ end }}{{ $message.Role }}/{{ end }}", "{{ if or .System .Tools }}x{{ end }}{{ if not .Suffix }}y{{ end }}{{ .Unknown }}",
		"{{ range .Tools }}{{ printf \"%v %s\" .Type .Function.Description }}{{ .Function.Description | html }}{{ end }}", "{{ range .Messages }}{{ template \"m\" . }}{{ end }}{{ define \"m\" }}[{{ .Role }}]{{ end }}",
	}
}

func legacies() []string {
	return []string{
		"{{ .System }}{{ .Prompt }}{{ .Response }}", "{{ if .System }}<|system|>\n{{ .System }}</s>\n{{ end }}{{ if .Prompt }}<|user|>\n{{ .Prompt }}</s>\n{{ end }}<|assistant|>\n{{ .Response }}</s>\n",
		"[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST]", "{{- if .First }}a{{ end }}{{ .Prompt }}", "{{ .Suffix }}{{ .Nope }}", "{{- with .System }}{{ . }}\n{{ end -}}\n{{ .Prompt }}",
	}
}
