/* swap ROUNDS PAUSE A B [C D]...: exchange A with B, C with D and so on, again and again (renameat2(2)).
 *
 * ROUNDS 0: until killed or its parent has gone. PAUSE: microseconds between two rounds. Prints "ready" before the
 * first round, and the number of rounds after the last one. The attacker of a race: root of a jail in its own t.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void end(int number)
{
	(void)number;
	stop = 1;
}

int main(int argc, char **argv)
{
	long rounds, wanted, pause;
	int i;

	if (argc < 5 || argc % 2 == 0)
		return 2;
	wanted = atol(argv[1]);
	pause = atol(argv[2]);
	signal(SIGTERM, end);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	puts("ready");
	fflush(stdout);
	for (rounds = 0; !stop && (wanted == 0 || rounds < wanted); rounds++) {
		for (i = 3; i + 1 < argc; i += 2)
			syscall(SYS_renameat2, AT_FDCWD, argv[i], AT_FDCWD, argv[i + 1], 2 /* RENAME_EXCHANGE */);
		if (pause)
			usleep(pause);
	}
	printf("%ld\n", rounds);
	return 0;
}
