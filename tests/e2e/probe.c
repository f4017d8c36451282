/*
 * probe SELF: what root inside a running jail would try, one line each on stdout: WHAT ok, or WHAT and the errno.
 * Static, so that neither a missing tool nor a missing library can look like a refusal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *self;

static void say(const char *what, const char *where, int result) {
    int error = errno;
    printf("%s%s%s %s\n", what, *where ? ":" : "", where, result < 0 ? strerrorname_np(error) : "ok");
    fflush(stdout);
}

static int put(const char *path) {
    char block[65536];
    ssize_t length;
    int from = open(self, O_RDONLY | O_CLOEXEC);
    if (from < 0) exit(70);
    int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (to < 0) {
        int error = errno;
        close(from);
        errno = error;
        return -1;
    }
    while ((length = read(from, block, sizeof block)) > 0)
        if (write(to, block, length) != length) exit(71);
    close(from);
    return close(to);
}

/* Run a function in a child, since it changes the process; its errno comes back as the exit status. */
static int in_child(int (*attempt)(const char *), const char *argument) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(attempt(argument) < 0 ? errno : 0);
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status)) exit(72);
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

static int execute(const char *path) {
    execl(path, path, "hello", (char *)0);
    return -1;
}

static int remount_in_user_namespace(const char *path) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return -1;
    return mount(0, path, 0, MS_REMOUNT | MS_BIND, 0);
}

static int mount_tmpfs(const char *path) {
    return mount("none", path, "tmpfs", 0, 0);
}

/* Out of a chroot by the classic way: only where the mount namespace has more than the jail. */
static int leave_chroot(const char *path) {
    struct stat before, after;
    int top = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot(path) < 0 || fchdir(top) < 0 || fstat(top, &before) < 0) return -1;
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0) return -1;
    if (stat(".", &after) < 0) return -1;
    errno = EXDEV;
    return before.st_ino == after.st_ino && before.st_dev == after.st_dev ? -1 : 0;
}

static void places(const char *when, const char *const *list, int run) {
    char path[256], name[64];
    for (; *list; list++) {
        snprintf(path, sizeof path, "%s/.probe", *list);
        snprintf(name, sizeof name, "%swrite", when);
        int written = put(path);
        say(name, *list, written);
        if (written < 0 || !run) {
            if (written == 0) unlink(path);
            continue;
        }
        snprintf(name, sizeof name, "%sexec", when);
        say(name, *list, in_child(execute, path));
        unlink(path);
        snprintf(name, sizeof name, "%smknod", when);
        say(name, *list, mknod(path, S_IFBLK | 0600, makedev(254, 0)));
        unlink(path);
    }
}

int main(int count, char **words) {
    static const char *const closed[] = {
        "/", "/bin", "/etc", "/root", "/s", "/s/etc", "/usr", "/usr/bin", "/usr/local", "/usr/local/sbin",
        "/usr/lib/sysimage/dpkg", 0 };
    static const char *const opened[] = { "/tmp", "/var", "/var/tmp", 0 };
    static const char *const memory[] = { "/dev", "/dev/shm", "/run", 0 };
    static const char *const mounts[] = { "/", "/s", "/t", 0 };
    if (count == 2 && !strcmp(words[1], "hello")) return 0;
    if (count != 2) return 2;
    self = words[1];
    umask(0);
    places("", closed, 0);
    places("", opened, 1);
    places("", memory, 1);
    say("chroot", "/tmp", in_child(leave_chroot, "/tmp"));
    say("core_pattern", "", open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC));
    say("sysrq", "", open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC));
    say("mount", "/tmp", in_child(mount_tmpfs, "/tmp"));
    umount2("/tmp", MNT_DETACH);
    say("userns-remount", "/", in_child(remount_in_user_namespace, "/"));
    for (const char *const *path = mounts; *path; path++)
        say("remount", *path, mount(0, *path, 0, MS_REMOUNT | MS_BIND, 0));
    /* Whatever the calls above have said: is anything open now that was closed? */
    places("then-", closed, 0);
    places("then-", opened, 1);
    places("then-", memory, 1);
    return 0;
}
