/* Another host's name: $FAKE_HOST for every gethostname() and uname() of the programs it is loaded into. */
#include <stdlib.h>
#include <string.h>

int gethostname(char *to, size_t n) { strncpy(to, getenv("FAKE_HOST"), n); to[n - 1] = 0; return 0; }
