/* A fake libnvidia-ml.so.1: two cards that answer plainly, until FAKE_NVML_FAIL says otherwise.
 *
 * FAKE_NVML_FAIL   rules "function:card:code", separated by spaces; card "*" is any (and calls without a card)
 * FAKE_NVML_COUNT  number of cards, 2 without it
 * FAKE_NVML_MIG    number of a card that is split into MIG instances; the others do not support it
 * FAKE_NVML_UNIFIED  number of a card with 0 bytes of its own
 * FAKE_NVML_LOG    a file that gets a line "function card" for every call
 * FAKE_NVML_HANG   a function that never returns
 *
 * Compiled with -DOLD it lacks what an old driver lacks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long bytes;
typedef struct { bytes total, free, used; } memory_v1;
typedef struct { unsigned version; bytes total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;

static char cards[16];
#define GIB (1ULL << 30)

static int card_of(void *device) { return device ? (int)((char *)device - cards) : -1; }

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int outcome(const char *function, int card) {
    const char *log = getenv("FAKE_NVML_LOG"), *hang = getenv("FAKE_NVML_HANG"), *fail = getenv("FAKE_NVML_FAIL");
    if (log) {
        FILE *file = fopen(log, "a");
        fprintf(file, "%s %d\n", function, card);
        fclose(file);
    }
    while (hang && !strcmp(hang, function)) sleep(1);
    char rules[4096], *rest = rules, *rule;
    snprintf(rules, sizeof rules, "%s", fail ? fail : "");
    while ((rule = strsep(&rest, " ")) != NULL) {
        char *name = strsep(&rule, ":"), *which = strsep(&rule, ":");
        if (rule && !strcmp(name, function) && (*which == '*' || atoi(which) == card)) return atoi(rule);
    }
    return 0;
}

#define ANSWER(card) do { int code = outcome(__func__, card); if (code) return code; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; ANSWER(-1); return 0; }
int nvmlShutdown(void) { ANSWER(-1); return 0; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the fake"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) { ANSWER(-1); snprintf(text, length, "550.54.14"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { ANSWER(-1); *version = 12040; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { ANSWER(-1); *count = number("FAKE_NVML_COUNT", 2); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    ANSWER((int)index);
    *device = &cards[index];
    return 0;
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    ANSWER(card_of(device));
    if (getenv("FAKE_NVML_GARBAGE")) snprintf(text, length, "\xff\xfe");
    else snprintf(text, length, "NVIDIA Fake %d", card_of(device));
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    ANSWER(card_of(device));
    snprintf(text, length, "GPU-0000000%d", card_of(device));
    return 0;
}

static bytes total_of(void *device) { return card_of(device) == number("FAKE_NVML_UNIFIED", -1) ? 0 : 80 * GIB; }

int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *memory) {
    ANSWER(card_of(device));
    *memory = (memory_v1){total_of(device), 67 * GIB, 13 * GIB};
    return 0;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    ANSWER(card_of(device));
    if (card_of(device) != number("FAKE_NVML_MIG", -1)) return 3;
    *current = *pending = 1;
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    ANSWER(card_of(device));
    *rates = (utilization){97, 40};
    if (card_of(device) == number("FAKE_NVML_MIG", -1)) *rates = (utilization){0, 0};
    return 0;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { ANSWER(card_of(device)); *milliwatts = 412300; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { ANSWER(card_of(device)); *milliwatts = 700000; return 0; }

#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    ANSWER(card_of(device));
    *memory = (memory_v2){memory->version, total_of(device), 1 * GIB, 67 * GIB, 12 * GIB};
    return 0;
}
#endif

#ifdef NEWER /* without what CUDA 14 is to remove */
typedef struct { unsigned version, sensor; int celsius; } temperature_v1;
int nvmlDeviceGetTemperatureV(void *device, temperature_v1 *temperature) {
    ANSWER(card_of(device));
    temperature->celsius = 61;
    return 0;
}
#else
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    ANSWER(card_of(device));
    *celsius = 61;
    return 0;
}
#endif
