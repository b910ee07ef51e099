package main

import (
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
)

// argocd runs a health script as Argo CD does: the object is the global `obj`, the script returns a table with `status`
// and `message`.
func argocd(scriptPath, path string) error {
	read, err := object(path)
	if err != nil {
		return err
	}
	script, err := os.ReadFile(scriptPath)
	if err != nil {
		return err
	}
	// Argo CD opens no more than these to a health script:
	// https://argo-cd.readthedocs.io/en/stable/operator-manual/health/#custom-health-checks
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}, lua.LString(library.name)); err != nil {
			return err
		}
	}
	state.SetGlobal("obj", luaValue(state, read.Object))
	if err := state.DoString(string(script)); err != nil {
		return fmt.Errorf("%s: %w", scriptPath, err)
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return fmt.Errorf("%s returns no table", scriptPath)
	}
	text := func(field string) string {
		if value, ok := health.RawGetString(field).(lua.LString); ok {
			return string(value)
		}
		return ""
	}
	return show(verdict{text("status"), text("message")})
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, entry := range value {
			table.RawSetString(key, luaValue(state, entry))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, entry := range value {
			table.Append(luaValue(state, entry))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	}
	return lua.LNil
}
