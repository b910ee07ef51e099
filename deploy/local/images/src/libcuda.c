// Stands for the driver library that an image wrongly brings along. A program that
// gets 11000 here loaded the image's library instead of the host's.
int cuDriverGetVersion(int *version) {
  *version = 11000;
  return 0;
}
