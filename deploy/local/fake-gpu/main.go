// Command fake-gpu is a Kubernetes device plugin that hands out device nodes which
// look like NVIDIA's, so that scheduling, limits and unhealthy devices are real on a
// machine without a GPU.
//
// The control file has one line per device: "INDEX Healthy" or "INDEX Unhealthy". It
// is read again whenever it changes; devices come and go with its lines.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const pollInterval = 200 * time.Millisecond

// The kubelet names devices by this prefix and an index, as NVIDIA's plugin names
// them by UUID: a container reads the same names in NVIDIA_VISIBLE_DEVICES.
func uuid(node string, index int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%d", node, index))
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

type gpu struct {
	uuid   string
	index  int
	health string
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	node    string
	devices string // folder of the device nodes

	mu      sync.Mutex
	gpus    []gpu
	changed chan struct{} // closed and replaced when gpus change
}

func main() {
	kubelet := flag.String("device-plugins", "/var/lib/kubelet/device-plugins", "the kubelet's `folder` of device plugin sockets")
	resource := flag.String("resource", "nvidia.com/gpu", "`name` of the extended resource")
	control := flag.String("control", "", "control `file`: a line \"INDEX Healthy|Unhealthy\" per device")
	devices := flag.String("devices", "", "`folder` for the device nodes")
	node := flag.String("node", "", "node `name`; decides the UUIDs of the devices")
	flag.Parse()
	if *control == "" || *devices == "" || *node == "" {
		log.Fatal("-control, -devices and -node are required")
	}
	if err := os.MkdirAll(*devices, 0o755); err != nil {
		log.Fatal(err)
	}
	p := &plugin{node: *node, devices: *devices, changed: make(chan struct{})}
	for _, name := range []string{"nvidiactl", "nvidia-uvm"} {
		if err := p.makeNode(name); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.readControl(*control); err != nil {
		log.Fatal(err)
	}
	go func() {
		for ; ; time.Sleep(pollInterval) {
			if err := p.readControl(*control); err != nil {
				log.Print(err)
			}
		}
	}()

	// The kubelet empties the folder when it starts and expects all plugins to
	// register again: serve until our own socket is gone, for ever.
	for ; ; time.Sleep(pollInterval) {
		if err := p.serve(*kubelet, *resource); err != nil {
			log.Printf("%v; trying again", err)
			time.Sleep(time.Second)
		}
	}
}

// makeNode makes a device that behaves like /dev/null: harmless to open and write.
func (p *plugin) makeNode(name string) error {
	path := filepath.Join(p.devices, name)
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mknod %s: %w", path, err)
	}
	return os.Chmod(path, 0o666)
}

func (p *plugin) readControl(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var gpus []gpu
	var uuids strings.Builder
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		index, err := strconv.Atoi(fields[0])
		if err != nil || len(fields) != 2 || fields[1] != api.Healthy && fields[1] != api.Unhealthy {
			return fmt.Errorf("%s: bad line %q, want \"INDEX Healthy|Unhealthy\"", path, lines.Text())
		}
		if err := p.makeNode(fmt.Sprintf("nvidia%d", index)); err != nil {
			return err
		}
		g := gpu{uuid: uuid(p.node, index), index: index, health: fields[1]}
		gpus = append(gpus, g)
		fmt.Fprintln(&uuids, g.index, g.uuid)
	}
	// For the container runtime, which knows nothing of the device plugin.
	if err := replaceFile(filepath.Join(p.devices, "uuids"), uuids.String()); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !reflect.DeepEqual(gpus, p.gpus) {
		log.Printf("devices: %v", gpus)
		p.gpus = gpus
		close(p.changed)
		p.changed = make(chan struct{})
	}
	return nil
}

// replaceFile writes only what differs, and never shows half a file.
func replaceFile(path, content string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == content {
		return nil
	}
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (p *plugin) serve(folder, resource string) error {
	name := "fake-gpu-" + strings.ReplaceAll(resource, "/", "-") + ".sock"
	socket := filepath.Join(folder, name)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go server.Serve(listener)
	defer server.Stop()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+filepath.Join(folder, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = api.NewRegistrationClient(conn).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: name, ResourceName: resource,
		Options: &api.DevicePluginOptions{},
	})
	if err != nil {
		return fmt.Errorf("registering with the kubelet: %w", err)
	}
	log.Printf("registered %s", resource)
	for {
		if _, err := os.Stat(socket); err != nil {
			log.Print("the kubelet started again, registering again")
			return nil
		}
		time.Sleep(pollInterval)
	}
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for {
		p.mu.Lock()
		gpus, changed := p.gpus, p.changed
		p.mu.Unlock()
		response := &api.ListAndWatchResponse{}
		for _, g := range gpus {
			response.Devices = append(response.Devices, &api.Device{ID: g.uuid, Health: g.health})
		}
		if err := stream.Send(response); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	p.mu.Lock()
	indexes := map[string]int{}
	for _, g := range p.gpus {
		indexes[g.uuid] = g.index
	}
	p.mu.Unlock()
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		nodes := []string{"nvidiactl", "nvidia-uvm"}
		for _, id := range container.DevicesIds {
			index, ok := indexes[id]
			if !ok {
				return nil, fmt.Errorf("no device %s", id)
			}
			nodes = append(nodes, fmt.Sprintf("nvidia%d", index))
		}
		allocated := &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		}
		for _, name := range nodes {
			allocated.Devices = append(allocated.Devices, &api.DeviceSpec{
				ContainerPath: "/dev/" + name, HostPath: filepath.Join(p.devices, name), Permissions: "rw",
			})
		}
		response.ContainerResponses = append(response.ContainerResponses, allocated)
	}
	return response, nil
}
