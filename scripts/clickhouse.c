/* A `clickhouse local` made of the library inside npm's @chdb/lib-linux-x64-gnu, which npm has and Debian has not.
 *
 * cc -O1 -o clickhouse clickhouse.c -ldl -lpthread
 * LIBCHDB=/path/libchdb.so ./clickhouse ARGUMENTS OF clickhouse local
 *
 * CLICKHOUSE_PARENT=PID has it end with the process PID, which has started it: tests that are killed leave no server
 * behind. Knows nothing of what it is asked to run: scripts/clickhouse says that. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What the library answers with; its layout is that of chdb.h's local_result_v2. */
struct result {
    char *text;
    size_t length;
    void *buffer;
    double elapsed_seconds;
    unsigned long rows, bytes;
    char *error;
};

/* The kernel can signal a parent's end too (PR_SET_PDEATHSIG), but means the end of the thread that has started us:
 * that of one test, while another may still use the server. */
static void *end_with(void *parent) {
    while (getppid() == atol(parent)) usleep(500 * 1000);
    _exit(3);
}

int main(int count, char **arguments) {
    pthread_t watch;
    char *parent = getenv("CLICKHOUSE_PARENT");
    if (parent && pthread_create(&watch, NULL, end_with, parent) != 0) {
        fprintf(stderr, "no thread can be started that watches the parent process\n");
        return 2;
    }
    const char *path = getenv("LIBCHDB");
    void *library = dlopen(path ? path : "libchdb.so", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    struct result *(*run)(int, char **) = (struct result * (*)(int, char **)) dlsym(library, "query_stable_v2");
    if (!run) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    arguments[0] = "clickhouse";
    struct result *result = run(count, arguments);
    if (!result) return 0;
    if (result->error) {
        fprintf(stderr, "%s\n", result->error);
        return 1;
    }
    if (result->text) fwrite(result->text, 1, result->length, stdout);
    return 0;
}
