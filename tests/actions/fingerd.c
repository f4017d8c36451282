// fingerd ADDR PORT HOMES [LOG]: answers RFC 1288 queries with a user's .plan, one at a time; needs no other file.
// Started as root with -u UID:GID first, it becomes that user once it listens. VERSION is in each answer. With -DBROKEN it ends at once; with -DDEAF it does not heed SIGTERM.
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "one"
#endif

static void stop(int number) { (void)number; _exit(0); }

static void answer(int client, const char *homes, int log) {
    char query[128] = {0}, path[512];
    ssize_t size = read(client, query, sizeof query - 1), at = 0;
    if (!strncmp(query, "/W", 2)) at = 2;
    while (query[at] == ' ') at++;
    char *name = query + at;
    while (at < size && (isalnum((unsigned char)query[at]) || query[at] == '_')) at++;
    query[at] = 0;
    snprintf(path, sizeof path, "%s/%s/.plan", homes, name);
    int plan = *name ? open(path, O_RDONLY) : -1;
    dprintf(client, "fingerd %s\r\n", VERSION);
    if (plan < 0) {
        dprintf(client, "no such user\r\n");
    } else {
        char text[4096];
        while ((size = read(plan, text, sizeof text)) > 0)
            if (write(client, text, size) < 0) break;
        close(plan);
    }
    if (log >= 0) dprintf(log, "finger %s\n", name);
    dprintf(2, "finger %s\n", name);
}

int main(int count, char **words) {
    int uid = 0, gid = 0;
    if (count > 2 && !strcmp(words[1], "-u")) {
        sscanf(words[2], "%d:%d", &uid, &gid);
        count -= 2;
        words += 2;
    }
    if (count == 2 && !strcmp(words[1], "-version")) return puts(VERSION), 0;
    if (count < 4) return fprintf(stderr, "usage: fingerd ADDR PORT HOMES [LOG]\n"), 2;
#ifdef BROKEN
    return fprintf(stderr, "fingerd: broken on purpose\n"), 3;
#endif
#ifndef DEAF
    signal(SIGTERM, stop);
#endif
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    inet_pton(AF_INET, words[1], &address.sin_addr);
    int server = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (void *)&address, sizeof address) || listen(server, 5)) return perror("fingerd: bind"), 1;
    if (uid && (setgroups(0, 0) || setgid(gid) || setuid(uid))) return perror("fingerd: setuid"), 1;
    int log = count > 4 ? open(words[4], O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (count > 4 && log < 0) perror(words[4]);
    for (;;) {
        int client = accept(server, 0, 0);
        if (client < 0) continue;
        answer(client, words[3], log);
        close(client);
    }
}
