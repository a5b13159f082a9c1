/*
 * paths NODE DIRECTORY LINK: what calls on paths answer. A real device node, its directory and a symbolic link to a directory
 * get the same answers from the real kernel as the emulated ones from us.
 */
#include "client.h"
#include <sys/syscall.h>

static char *page; /* followed by nothing */
static char *volatile nothing;
static char wide[3 * 4096] __attribute__((aligned(4096)));

static char *at_end(const char *text, size_t length)
{
    return memcpy(page + 4096 - length, text, length);
}

/* "open": descriptors are not comparable */
#define OPEN(label, call) SAY(label, (call) < 0 ? -1 : 0)

int main(int argc, char **argv)
{
    char *node = argv[1], *directory = argv[2], *link = argv[3], text[8192], small[4];
    const char *last = strrchr(node, '/') + 1, *name = strrchr(link, '/') + 1;
    struct stat status;
    int fd, up;

    if (argc != 4)
        return 2;
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    OPEN("null", open(nothing, O_RDWR));
    OPEN("wild", open((char *)16, O_RDWR));
    OPEN("top", open((char *)-1L, O_RDWR));
    OPEN("to-the-end", open(at_end(node, strlen(node) + 1), O_RDWR));
    OPEN("over-the-end", open(at_end(node, strlen(node)), O_RDWR));
    memset(wide, '/', sizeof wide); /* not at a page's start, so that its end lies in the second one */
    strcpy(wide + 16 + 4096 - strlen(node), node);
    OPEN("long", open(wide + 16, O_RDWR));
    OPEN("just-short-enough", open(wide + 17, O_RDWR));
    OPEN("empty", open("", O_RDWR));
    OPEN("no-directory", open(node, O_RDONLY | O_DIRECTORY));
    OPEN("exclusive", open(node, O_RDWR | O_CREAT | O_EXCL, 0600));
    OPEN("directory-for-writing", open(directory, O_RDWR));

    fd = (int)NEED(open(node, O_RDWR));
    OPEN("at-a-node", openat(fd, last, O_RDWR));
    OPEN("at-nothing", openat(999, last, O_RDWR));
    OPEN("absolute-at-nothing", openat(999, node, O_RDWR));
    up = (int)NEED(open(directory, O_RDONLY | O_DIRECTORY));
    OPEN("at-directory", openat(up, last, O_RDWR));

    sprintf(text, "%s/", node);
    OPEN("slash", open(text, O_RDWR));
    SAY("stat-slash", stat(text, &status));
    sprintf(text, "%s/.", node);
    SAY("stat-dot", stat(text, &status));
    sprintf(text, "%s/..", node);
    SAY("node-up", stat(text, &status));
    sprintf(text, "%s//./%s", directory, last);
    OPEN("odd-form", open(text, O_RDWR));
    sprintf(text, "%s/nothing", directory);
    OPEN("nothing", open(text, O_RDWR));
    sprintf(text, "%s/nothing/../%s", directory, last);
    OPEN("up-from-nothing", open(text, O_RDWR));
    sprintf(text, "%s/", directory);
    SAY("directory-slash", stat(text, &status));

    SAY("stat-null", stat(node, (struct stat *)nothing));
    SAY("stat-over-the-end", stat(node, (void *)(page + 4096 - 8)));
    SAY("statx-null", syscall(SYS_statx, AT_FDCWD, node, 0, STATX_BASIC_STATS, NULL));
    SAY("access", access(node, R_OK | W_OK));
    SAY("access-mode", access(node, 8));
    SAY("access-null", access(nothing, R_OK));

    SAY("link-small", readlink(link, small, sizeof small));
    SAY("link-empty", readlink(link, small, 0));
    SAY("link-negative", syscall(SYS_readlink, link, small, -1));
    SAY("link-null", readlink(link, nothing, 100));
    SAY("no-link", readlink(node, text, sizeof text));
    sprintf(text, "%s/", link);
    SAY("link-slash", readlink(text, small, sizeof small));
    SAY("lstat", lstat(link, &status));
    printf("lstat-link %d\n", S_ISLNK(status.st_mode));
    SAY("lstat-slash", lstat(text, &status));
    printf("lstat-slash-link %d\n", S_ISLNK(status.st_mode));
    /* up from where the link leads to, which does not have the link's own name in it */
    sprintf(text, "%s/../%s", link, name);
    SAY("link-up", readlink(text, small, sizeof small));
    sprintf(text, "%s/..", link);
    SAY("link-parent", stat(text, &status));
    OPEN("no-follow", open(link, O_RDONLY | O_NOFOLLOW));
    sprintf(text, "/proc/self/fd/%d/%s", up, last);
    OPEN("by-proc-directory", open(text, O_RDWR));
    sprintf(text, "/proc/self/fd/%d", fd);
    OPEN("by-proc", open(text, O_RDWR));
    return 0;
}
