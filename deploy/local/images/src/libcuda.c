// A driver library that only tells which one it is: VERSION is 11000 in the library
// that an image wrongly brings along, 12040 in the host's.
int cuDriverGetVersion(int *version) {
  *version = VERSION;
  return 0;
}
