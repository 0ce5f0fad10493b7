/* A fake libnvidia-ml.so.1: two cards that answer plainly, until FAKE_NVML_FAIL says otherwise.
 *
 * FAKE_NVML_FAIL   rules "function:card:code", separated by spaces; card "*" is any (and calls without a card)
 * FAKE_NVML_COUNT  number of cards, 2 without it
 * FAKE_NVML_MIG    number of a card that is split into MIG instances; the others do not support it
 * FAKE_NVML_UNIFIED  number of a card with 0 bytes of its own
 * FAKE_NVML_LOG    a file that gets a line "function card" for every call
 * FAKE_NVML_HANG   a function that does not return while the variable is set
 * FAKE_NVML_CONTROL  a file whose words are a function that hangs, or "crash:" or "fail:" and a function
 * FAKE_NVML_FABRIC, FAKE_NVML_PENDING, FAKE_NVML_RECOVERY, FAKE_NVML_XID  "card:value": that card's state
 * FAKE_NVML_VALUE  "function:value": what a function with a number answers
 * FAKE_NVML_NAME   the name of every card
 * FAKE_NVML_PID    a process on every card, with 5 GiB
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

static char cards[32]; /* cards 0 to 15, then the slices of a card that is split */
#define GIB (1ULL << 30)

static int card_of(void *device) { return device ? (int)((char *)device - cards) : -1; }

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* Whether the control file has this word; it can change while a process runs. */
static int told(const char *function, const char *prefix) {
    const char *path = getenv("FAKE_NVML_CONTROL");
    char word[128], wanted[128];
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    snprintf(wanted, sizeof wanted, "%s%s", prefix, function);
    int found = 0;
    while (!found && fscanf(file, "%127s", word) == 1) found = !strcmp(word, wanted);
    fclose(file);
    return found;
}

/* The value after "name:" in an environment variable. */
static unsigned value_of(const char *variable, const char *name, unsigned otherwise) {
    const char *text = getenv(variable);
    size_t length = strlen(name);
    if (!text || strncmp(text, name, length) || text[length] != ':') return otherwise;
    return (unsigned)strtoul(text + length + 1, NULL, 10);
}

static unsigned state_of(const char *variable, int card, unsigned otherwise) {
    char name[8];
    snprintf(name, sizeof name, "%d", card);
    return value_of(variable, name, otherwise);
}

static int outcome(const char *function, int card) {
    const char *log = getenv("FAKE_NVML_LOG"), *hang, *fail = getenv("FAKE_NVML_FAIL");
    if (log) {
        FILE *file = fopen(log, "a");
        fprintf(file, "%s %d\n", function, card);
        fclose(file);
    }
    while ((hang = getenv("FAKE_NVML_HANG")) && !strcmp(hang, function)) usleep(10000);
    while (told(function, "")) usleep(10000);
    if (told(function, "crash:")) abort();
    if (told(function, "fail:")) return 999;
    char rules[8192], *rest = rules, *rule;
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
    else if (getenv("FAKE_NVML_NAME")) snprintf(text, length, "%s", getenv("FAKE_NVML_NAME"));
    else if (card_of(device) >= 16) snprintf(text, length, "NVIDIA Fake MIG 3g.40gb");
    else snprintf(text, length, "NVIDIA Fake %d", card_of(device));
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    ANSWER(card_of(device));
    snprintf(text, length, card_of(device) < 16 ? "GPU-0000000%d" : "MIG-000000%d", card_of(device));
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

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { ANSWER(card_of(device)); *milliwatts = value_of("FAKE_NVML_VALUE", __func__, 412300); return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { ANSWER(card_of(device)); *milliwatts = 700000; return 0; }

/* --- what a card is --- */

#define NUMBER(function, value) \
    int function(void *device, unsigned *number) { ANSWER(card_of(device)); *number = value_of("FAKE_NVML_VALUE", #function, value); return 0; }

NUMBER(nvmlDeviceGetNumGpuCores, 16896)
NUMBER(nvmlDeviceGetMemoryBusWidth, 5120)
NUMBER(nvmlDeviceGetArchitecture, 9)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 4)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, 8)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, 650000)
NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetComputeMode, 3)
NUMBER(nvmlDeviceGetFanSpeed, 33)
NUMBER(nvmlDeviceGetMaxMigDeviceCount, 7)

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    ANSWER(card_of(device));
    *major = 9, *minor = 0;
    return 0;
}

int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *megahertz) {
    ANSWER(card_of(device));
    *megahertz = type == 2 ? 2619 : 1980;
    return 0;
}

int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *megahertz) {
    ANSWER(card_of(device));
    *megahertz = type == 2 ? 2600 : 1755;
    return 0;
}

int nvmlDeviceGetTemperatureThreshold(void *device, unsigned kind, unsigned *celsius) {
    ANSWER(card_of(device));
    *celsius = kind == 1 ? 87 : 92;
    return 0;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *least, unsigned *most) {
    ANSWER(card_of(device));
    *least = 200000, *most = 720000;
    return 0;
}

int nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending) {
    ANSWER(card_of(device));
    *current = 1, *pending = 0;
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned slot, void **slice) {
    ANSWER(card_of(device));
    if (slot == 1 || slot > 2) return 6; /* NVML_ERROR_NOT_FOUND: an empty slot */
    *slice = &cards[16 + slot];
    return 0;
}

typedef struct { unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gpu_slices, compute_slices; bytes megabytes; } attributes;
int nvmlDeviceGetAttributes_v2(void *device, attributes *found) {
    ANSWER(card_of(device));
    *found = (attributes){.multiprocessors = 60, .megabytes = 40 * 1024};
    return 0;
}

/* --- how busy it is --- */

int nvmlDeviceGetPcieThroughput(void *device, unsigned counter, unsigned *kilobytes) {
    ANSWER(card_of(device));
    *kilobytes = counter ? 2000 : 1000; /* received, sent */
    return 0;
}

int nvmlDeviceGetTotalEccErrors(void *device, unsigned kind, unsigned counter, bytes *errors) {
    ANSWER(card_of(device));
    *errors = kind ? 0 : 7;
    return 0;
}

typedef struct { unsigned field, scope; long long time, latency; unsigned type; int outcome; bytes value; } field_value;
int nvmlDeviceGetFieldValues(void *device, int count, field_value *fields) {
    static bytes sent_by[32]; /* 1024 KiB more with every call */
    ANSWER(card_of(device));
    bytes sent = sent_by[card_of(device)] += fields[0].field == 138 ? 1024 : 0;
    for (int i = 0; i < count; i++) {
        fields[i].outcome = 0, fields[i].type = 3;
        fields[i].value = fields[i].field == 138 ? sent : 2 * sent;
        if (fields[i].field == 230) fields[i].value = state_of("FAKE_NVML_RECOVERY", card_of(device), 0);
    }
    return 0;
}

typedef struct { unsigned pid; bytes used; unsigned instance, compute; } process;
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *found) {
    ANSWER(card_of(device));
    unsigned room = *count;
    *count = getenv("FAKE_NVML_PID") ? 1 : 0;
    if (room < *count) return 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
    if (*count) *found = (process){number("FAKE_NVML_PID", 0), 5 * GIB, 0, 0};
    return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, process *found) {
    (void)found;
    ANSWER(card_of(device));
    *count = 0;
    return 0;
}

/* --- health --- */

typedef struct { unsigned char cluster[16]; int status; unsigned clique, state; } fabric;
int nvmlDeviceGetGpuFabricInfo(void *device, fabric *info) {
    ANSWER(card_of(device));
    info->status = 0;
    info->state = state_of("FAKE_NVML_FABRIC", card_of(device), 3);
    return 0;
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ANSWER(card_of(device));
    *corrected = 1, *uncorrected = 2;
    unsigned state = state_of("FAKE_NVML_PENDING", card_of(device), 0);
    *pending = state == 1, *failed = state == 2;
    return 0;
}

typedef struct { bytes reference, violation; } violation;
int nvmlDeviceGetViolationStatus(void *device, unsigned policy, violation *time) {
    static bytes held[8]; /* the board's limit holds a little longer with every call */
    ANSWER(card_of(device));
    time->reference = 0;
    time->violation = policy == 3 && getenv("FAKE_NVML_BOARD") ? (held[policy] += 1000) : 0;
    return 0;
}

typedef struct { void *device; bytes type, data; unsigned gpu, compute; } event_data;
static int event_sets[32];
int nvmlEventSetCreate(void **set) {
    ANSWER(-1);
    static int count;
    *set = &event_sets[count++ % 32];
    *(int *)*set = -1;
    return 0;
}
int nvmlDeviceRegisterEvents(void *device, bytes types, void *set) { ANSWER(card_of(device)); *(int *)set = card_of(device); return 0; }
int nvmlEventSetWait_v2(void *set, event_data *data, unsigned milliseconds) {
    ANSWER(*(int *)set);
    unsigned xid = *(int *)set >= 0 ? state_of("FAKE_NVML_XID", *(int *)set, 0) : 0;
    *(int *)set = -1;
    if (!xid) return 10; /* NVML_ERROR_TIMEOUT: no event */
    data->data = xid;
    return 0;
}

/* --- GPM --- */

typedef struct { unsigned version, supported; } gpm_support;
int nvmlGpmQueryDeviceSupport(void *device, gpm_support *support) { ANSWER(card_of(device)); support->supported = !getenv("FAKE_NVML_NO_GPM"); return 0; }
int nvmlGpmSampleAlloc(void **sample) { ANSWER(-1); *sample = malloc(16); return 0; }
int nvmlGpmSampleFree(void *sample) { ANSWER(-1); free(sample); return 0; }
int nvmlGpmSampleGet(void *device, void *sample) { (void)sample; ANSWER(card_of(device)); return 0; }

typedef struct { unsigned id; int outcome; double value; char *names[3]; } gpm_metric;
typedef struct { unsigned version, count; void *first, *second; gpm_metric metrics[]; } gpm_metrics;
int nvmlGpmMetricsGet(gpm_metrics *asked) {
    ANSWER(-1);
    for (unsigned i = 0; i < asked->count; i++) {
        gpm_metric *metric = &asked->metrics[i];
        metric->outcome = asked->first == asked->second;
        metric->value = metric->id == 2 ? 41.5 : metric->id == 5 ? 12.25 : 30;
    }
    return 0;
}

#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    ANSWER(card_of(device));
    *memory = (memory_v2){memory->version, total_of(device), 1 * GIB, 67 * GIB, 12 * GIB};
    return 0;
}
#define CLOCKS nvmlDeviceGetCurrentClocksEventReasons
#else
#define CLOCKS nvmlDeviceGetCurrentClocksThrottleReasons
#endif
int CLOCKS(void *device, bytes *reasons) { ANSWER(card_of(device)); *reasons = 0x24; return 0; }

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
    *celsius = value_of("FAKE_NVML_VALUE", __func__, 61);
    return 0;
}
#endif
