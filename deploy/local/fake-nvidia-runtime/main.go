// Command fake-nvidia-runtime is an OCI runtime: runc, but containers get GPUs and the
// host's driver by their variable NVIDIA_VISIBLE_DEVICES, as NVIDIA's runtime does it.
//
// FAKE_NVIDIA_RUNC is the path of runc, FAKE_NVIDIA_DEVICES the folder of device nodes
// with a file `uuids` ("INDEX UUID" per line), FAKE_NVIDIA_DRIVER the folder of the
// driver with lib64 and bin.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type object = map[string]any

func main() {
	if bundle := bundleToCreate(os.Args[1:]); bundle != "" {
		if err := addGPUs(filepath.Join(bundle, "config.json")); err != nil {
			fmt.Fprintln(os.Stderr, "fake-nvidia-runtime:", err)
			os.Exit(1)
		}
	}
	runc := os.Getenv("FAKE_NVIDIA_RUNC")
	err := syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
	fmt.Fprintf(os.Stderr, "fake-nvidia-runtime: exec %q: %v\n", runc, err)
	os.Exit(1)
}

// bundleToCreate returns the bundle of `create --bundle DIR`, "" for other commands.
func bundleToCreate(args []string) string {
	if !slices.Contains(args, "create") {
		return ""
	}
	at := slices.Index(args, "--bundle")
	if at < 0 || at+1 == len(args) {
		return ""
	}
	return args[at+1]
}

func addGPUs(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config object
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // limits are larger than a float64 can tell apart
	if err := decoder.Decode(&config); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	nodes, err := visible(config)
	if err != nil || len(nodes) == 0 {
		return err
	}
	for _, name := range append(nodes, "nvidiactl", "nvidia-uvm") {
		if err := addDevice(config, name); err != nil {
			return err
		}
	}
	if err := addDriver(config); err != nil {
		return err
	}
	if data, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// visible returns the names of the device nodes that the container asks for.
func visible(config object) ([]string, error) {
	process, _ := config["process"].(object)
	env, _ := process["env"].([]any)
	asked := ""
	for _, entry := range env { // the last one wins
		if value, ok := strings.CutPrefix(entry.(string), "NVIDIA_VISIBLE_DEVICES="); ok {
			asked = value
		}
	}
	if asked == "" || asked == "void" || asked == "none" {
		return nil, nil
	}
	path := filepath.Join(os.Getenv("FAKE_NVIDIA_DEVICES"), "uuids")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	var all []string
	for line := range strings.Lines(string(data)) {
		index, uuid, _ := strings.Cut(strings.TrimSpace(line), " ")
		node := "nvidia" + index
		byName[index], byName[uuid] = node, node
		all = append(all, node)
	}
	if asked == "all" {
		return all, nil
	}
	var nodes []string
	for _, name := range strings.Split(asked, ",") {
		node, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("NVIDIA_VISIBLE_DEVICES=%s: unknown device %s", asked, name)
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func addDevice(config object, name string) error {
	linux := member(config, "linux")
	devices, _ := linux["devices"].([]any)
	path := "/dev/" + name
	for _, device := range devices {
		if device.(object)["path"] == path {
			return nil // the device plugin gave it already
		}
	}
	var stat unix.Stat_t
	source := filepath.Join(os.Getenv("FAKE_NVIDIA_DEVICES"), name)
	if err := unix.Stat(source, &stat); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	major, minor := unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
	linux["devices"] = append(devices, object{
		"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0,
	})
	resources := member(linux, "resources")
	allowed, _ := resources["devices"].([]any)
	resources["devices"] = append(allowed, object{
		"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw",
	})
	return nil
}

// addDriver mounts each file of the driver over the image's.
func addDriver(config object) error {
	mounts, _ := config["mounts"].([]any)
	for folder, target := range map[string]string{"lib64": "/usr/lib/x86_64-linux-gnu", "bin": "/usr/bin"} {
		source := filepath.Join(os.Getenv("FAKE_NVIDIA_DRIVER"), folder)
		files, err := os.ReadDir(source)
		if err != nil {
			return err
		}
		for _, file := range files {
			mounts = append(mounts, object{
				"destination": filepath.Join(target, file.Name()), "source": filepath.Join(source, file.Name()),
				"type": "bind", "options": []string{"ro", "nosuid", "nodev", "bind"},
			})
		}
	}
	config["mounts"] = mounts
	return nil
}

func member(parent object, name string) object {
	child, ok := parent[name].(object)
	if !ok {
		child = object{}
		parent[name] = child
	}
	return child
}
