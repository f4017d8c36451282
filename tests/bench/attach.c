/* attach ROOT FILE: the floor of a jail's mounts. FILE holds names, one a line. For each: the same calls in the same
 * order as layout.host.linux.mounts, three mounts assembled detached and attached whole. Prints JSON: the seconds of
 * each tenth of the names. Run it in a mount namespace of its own, ROOT being a private mount. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SYS_OPEN_TREE 428
#define SYS_MOVE_MOUNT 429
#define SYS_MOUNT_SETATTR 442
#define PRIVATE (1UL << 18)
#define NOEXEC 8
#define NODEV 4
#define NOSUID 2
#define RDONLY 1

struct attributes { uint64_t set, clear, propagation, userns; };

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static int directory(int at, const char *path)
{
	struct { uint64_t flags, mode, resolve; } how = { O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0x0e };
	int fd = syscall(SYS_openat2, at, path, &how, sizeof how);
	check(fd, path);
	return fd;
}

static int detached(int at, const char *name, uint64_t flags)
{
	struct stat found;
	struct attributes attributes = { flags, 0, PRIVATE, 0 };
	int fd = syscall(SYS_OPEN_TREE, at, name, 1 | O_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	check(fd, name);
	check(fstat(fd, &found), name);
	check(syscall(SYS_MOUNT_SETATTR, fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes), "mount_setattr");
	return fd;
}

static void move(int fd, int to, const char *path)
{
	check(syscall(SYS_MOVE_MOUNT, fd, "", to, path, 4), path);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static char names[65536][40];
	int count = 0;
	FILE *file = argc == 3 ? fopen(argv[2], "r") : NULL;
	if (!file)
		return 2;
	while (count < 65536 && fscanf(file, "%39s", names[count]) == 1)
		count++;
	int root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(root, argv[1]);
	double start = now();
	int alias = syscall(SYS_OPEN_TREE, root, "", 1 | O_CLOEXEC | AT_EMPTY_PATH);
	check(alias, "alias");
	int bases = directory(alias, "j"), s = directory(alias, "s"), t = directory(alias, "t"), j = directory(root, "j");
	printf("[");
	for (int i = 0; i < count; i++) {
		int top = detached(bases, "mroot", RDONLY | NOSUID | NODEV);
		int half = detached(s, names[i], RDONLY | NOSUID | NODEV);
		move(half, top, "s");
		close(half);
		half = detached(t, names[i], NOSUID | NODEV | NOEXEC);
		move(half, top, "t");
		close(half);
		move(top, j, names[i]);
		close(top);
		if ((i + 1) % (count / 10) == 0 && (i + 1) / (count / 10) <= 10) {
			double end = now();
			printf("%s%.9f", i < count / 10 ? "" : ", ", end - start);
			start = now();
		}
	}
	printf("]\n");
	return 0;
}
