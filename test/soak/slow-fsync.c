/*
 * Preloaded into workerd (LD_PRELOAD), over the libc calls that its SQLite makes. For the databases of Durable Objects:
 *
 * - every fsync of an instance's takes SOAK_FSYNC_MS longer, before anything is synced;
 * - SOAK_FSYNC_LOG gets a line for each mark ("soak~…~") that is written into a write-ahead log, and for each fsync, with
 *   the time (CLOCK_REALTIME, in microseconds) at which the call had returned;
 * - SOAK_FSYNC_KEPT (a folder) gets a copy of each file as it was when its last fsync returned: what a machine that lost
 *   its power would have.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char MARK[] = "soak~";

static long long now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* The path of an object's database or of its log, as a name without slashes; 0: another file. */
static int object_file(const char *path, char *name) {
  const char *at = strstr(path, "/do/portcullis-");
  if (at == NULL || strstr(at, "/metadata.sqlite") != NULL || strstr(at, "-shm") != NULL) return 0;
  at += 4;
  size_t i = 0;
  for (; at[i] != 0 && i < NAME_MAX; i++) name[i] = at[i] == '/' ? '@' : at[i];
  name[i] = 0;
  return 1;
}

static int file_of(int fd, char *path, char *name) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH_MAX);
  if (n <= 0) return 0;
  path[n] = 0;
  return object_file(path, name);
}

static void note(const char *line, int length) {
  static int fd = -1;
  const char *file = getenv("SOAK_FSYNC_LOG");
  if (file == NULL) return;
  if (fd < 0) fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd >= 0 && write(fd, line, length) < 0) { /* A log that is full shows as marks that are not there. */ }
}

/* Whole or not at all: a kill in the midst of it leaves the copy before. */
static void keep(int fd, const char *name) {
  const char *folder = getenv("SOAK_FSYNC_KEPT");
  struct stat st;
  if (folder == NULL || fstat(fd, &st) != 0) return;
  char to[PATH_MAX], tmp[PATH_MAX];
  if (snprintf(to, sizeof to, "%s/%s", folder, name) >= (int)sizeof to) return;
  if (snprintf(tmp, sizeof tmp, "%s/.tmp", folder) >= (int)sizeof tmp) return;
  int out = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (out < 0) return;
  off_t at = 0;
  while (at < st.st_size && sendfile(out, fd, &at, st.st_size - at) > 0) {}
  close(out);
  if (at == st.st_size) rename(tmp, to);
}

static int slow(int fd, int (*real)(int)) {
  char path[PATH_MAX + 1], name[NAME_MAX + 1], line[NAME_MAX + 128];
  if (!file_of(fd, path, name)) return real(fd);
  const char *ms = getenv("SOAK_FSYNC_MS");
  long long began = now_us();
  if (ms != NULL && strncmp(name, "portcullis-AgentInstance", 24) == 0) usleep((useconds_t)atoi(ms) * 1000);
  int result = real(fd);
  if (result == 0) keep(fd, name);
  note(line, snprintf(line, sizeof line, "f %lld %lld %s\n", began, now_us(), name));
  return result;
}

int fsync(int fd) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return slow(fd, real);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  return slow(fd, real);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (real == NULL) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  ssize_t result = real(fd, bytes, n, at);
  char path[PATH_MAX + 1], name[NAME_MAX + 1], line[NAME_MAX + 128];
  const char *mark = memmem(bytes, n, MARK, sizeof MARK - 1);
  if (mark == NULL || !file_of(fd, path, name)) return result;
  const char *end = (const char *)bytes + n;
  for (; mark != NULL; mark = memmem(mark + 1, end - mark - 1, MARK, sizeof MARK - 1)) {
    const char *close = memchr(mark + sizeof MARK - 1, '~', end - mark - (sizeof MARK - 1));
    if (close == NULL || close - mark > 40) continue;
    note(line, snprintf(line, sizeof line, "w %lld %.*s %s\n", now_us(), (int)(close - mark + 1), mark, name));
  }
  return result;
}

/* What is removed is no longer there to come back. */
int unlink(const char *path) {
  static int (*real)(const char *);
  if (real == NULL) real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  int result = real(path);
  char name[NAME_MAX + 1], kept[PATH_MAX];
  const char *folder = getenv("SOAK_FSYNC_KEPT");
  if (result == 0 && folder != NULL && object_file(path, name) &&
      snprintf(kept, sizeof kept, "%s/%s", folder, name) < (int)sizeof kept)
    real(kept);
  return result;
}
