// Command supervisor is process 1 of a local cluster's namespaces. It keeps the
// components running and reaps the processes that containers leave behind.
//
// Every executable file in STATE/components is one component. Its output goes to
// STATE/logs/NAME.log. STATE/run/NAME.status holds one line: "PID RESTARTS", PID as
// the cluster's own process namespace counts it, 0 while the component waits to be
// started again. A component is not started while STATE/run/NAME.stopped exists.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	firstDelay = 500 * time.Millisecond
	longDelay  = 5 * time.Second
	// A component that ran this long was healthy: its next restart is quick again.
	healthyAfter = 30 * time.Second
)

type component struct {
	name     string
	path     string
	started  time.Time
	restarts int
	delay    time.Duration
}

type exit struct {
	pid    int
	status syscall.WaitStatus
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if len(os.Args) != 2 {
		log.Fatal("usage: supervisor STATE")
	}
	state := os.Args[1]
	paths, err := filepath.Glob(filepath.Join(state, "components", "*"))
	if err != nil || len(paths) == 0 {
		log.Fatalf("no components in %s/components (%v)", state, err)
	}

	running := map[int]*component{}
	due := make(chan *component, len(paths))
	for _, path := range paths {
		due <- &component{name: filepath.Base(path), path: path, delay: firstDelay}
	}
	exits := make(chan exit)
	// Wait for a first child, because wait4 fails while there is none.
	firstChild := make(chan struct{})
	go reap(exits, firstChild)

	for {
		select {
		case c := <-due:
			if _, err := os.Stat(filepath.Join(state, "run", c.name+".stopped")); err == nil {
				time.AfterFunc(firstDelay, func() { due <- c })
				continue
			}
			pid, err := start(state, c)
			if err != nil {
				log.Printf("%s: cannot start %s: %v", c.name, c.path, err)
				restartLater(state, c, due)
				continue
			}
			running[pid] = c
			writeStatus(state, c, pid)
			log.Printf("%s: started, pid %d", c.name, pid)
			if firstChild != nil {
				close(firstChild)
				firstChild = nil
			}
		case e := <-exits:
			c := running[e.pid]
			if c == nil {
				continue // an orphan of some container
			}
			delete(running, e.pid)
			if time.Since(c.started) > healthyAfter {
				c.delay = firstDelay
			}
			log.Printf("%s: pid %d ended (%s), starting again in %s", c.name, e.pid, describe(e.status), c.delay)
			restartLater(state, c, due)
		}
	}
}

func start(state string, c *component) (int, error) {
	output, err := os.OpenFile(filepath.Join(state, "logs", c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer output.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	c.started = time.Now()
	return syscall.ForkExec(c.path, []string{c.path}, &syscall.ProcAttr{
		Dir:   state,
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

func restartLater(state string, c *component, due chan<- *component) {
	c.restarts++
	writeStatus(state, c, 0)
	time.AfterFunc(c.delay, func() { due <- c })
	c.delay = min(2*c.delay, longDelay)
}

// writeStatus replaces the file as a whole, so that readers never see half a line.
func writeStatus(state string, c *component, pid int) {
	path := filepath.Join(state, "run", c.name+".status")
	line := strconv.Itoa(pid) + " " + strconv.Itoa(c.restarts) + "\n"
	err := os.WriteFile(path+".new", []byte(line), 0o644)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		log.Printf("%s: %v", c.name, err)
	}
}

func reap(exits chan<- exit, firstChild <-chan struct{}) {
	<-firstChild
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch err {
		case nil:
			exits <- exit{pid, status}
		case syscall.EINTR:
		case syscall.ECHILD: // every component waits to be started again
			time.Sleep(firstDelay / 5)
		default:
			log.Fatalf("wait4: %v", err)
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("signal %d", status.Signal())
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}
