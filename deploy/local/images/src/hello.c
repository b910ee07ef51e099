// The only file of an image without shell and libraries. Prints how it was started:
// one line per argument, HOME and the working directory. `exit=N` sets the exit code.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char directory[4096];
  int code = 0;
  for (int i = 0; i < argc; i++) {
    printf("arg %d: %s\n", i, argv[i]);
    if (strncmp(argv[i], "exit=", 5) == 0) code = atoi(argv[i] + 5);
  }
  const char *home = getenv("HOME");
  printf("HOME: %s\n", home ? home : "(unset)");
  printf("cwd: %s\n", getcwd(directory, sizeof directory) ? directory : "(unknown)");
  return code;
}
