/* NVIDIA's management library as Lab calls it, with cards read from the file $FAKE_NVML:
   one line each, `NAME MEMORY_MIB USED_MIB BUSY_PERCENT CELSIUS MILLIWATTS`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char name[64]; unsigned long long memory, used; unsigned busy, heat, power; } Card;

static Card cards[16];
static unsigned count;
static int begun;

static int load(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 9; /* driver not loaded */
    for (count = 0; count < 16; count++) {
        Card *c = &cards[count];
        if (fscanf(file, "%63s %llu %llu %u %u %u", c->name, &c->memory, &c->used, &c->busy, &c->heat, &c->power) != 6)
            break;
    }
    fclose(file);
    return 0;
}

int nvmlInit_v2(void) { begun = load() == 0; return begun ? 0 : 9; }
int nvmlDeviceGetCount_v2(unsigned *n) { if (!begun) return 1; load(); *n = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle) { if (i >= count) return 2; *handle = &cards[i]; return 0; }
int nvmlDeviceGetName(void *h, char *to, unsigned n) { snprintf(to, n, "%s", ((Card *)h)->name); return 0; }
int nvmlDeviceGetUUID(void *h, char *to, unsigned n) { snprintf(to, n, "GPU-0000-%ld", (long)((Card *)h - cards)); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, unsigned long long *to) {
    Card *c = h;
    to[0] = c->memory << 20; to[1] = (c->memory - c->used) << 20; to[2] = c->used << 20;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *h, unsigned *to) { to[0] = ((Card *)h)->busy; to[1] = 0; return 0; }
int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *to) { if (sensor) return 2; *to = ((Card *)h)->heat; return 0; }
int nvmlDeviceGetPowerUsage(void *h, unsigned *to) { *to = ((Card *)h)->power; return 0; }
