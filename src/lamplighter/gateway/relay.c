/* The relay: moves the bytes of connections that the gateway's front hands to it, and knows nothing of what they mean.
 *
 * One thread, one edge-triggered epoll. A connection costs one `struct conn` and no buffer while it is idle: bytes are
 * received into one buffer that all share, and sent at once; only what the other side does not take is copied, at most
 * CHUNK, and nothing more is received until it is gone. The protocol of the control socket is told in relay_protocol.py.
 *
 * usage: _relay [fd of the control socket] [seconds without a byte that a connection lasts whose backend has closed]
 *               [uid] [gid]: who to become, once root's rights are not needed any more
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PROTOCOL = 1 };
enum { HANDOVER = 1, CUT = 2, COUNTERS = 3, READY = 16, CLOSED = 17 };
enum reason { ENDED, CLIENT_LOST, BACKEND_LOST, WAS_CUT, EXHAUSTED };

enum {
    INITIAL = 64 * 1024, /* of the protocol: most first bytes, each way */
    CHUNK = 64 * 1024,   /* bytes received at once, and most that wait for a side */
    IN_A_ROW = 4,        /* full chunks of one side before others get their turn */
    EVENTS = 256,
    MESSAGES = 64,       /* control messages before connections get their turn */
    ROWS = 1024,         /* counters in one message */
    BUCKETS = 16384,
};

struct header {
    uint32_t kind, a, b, unused;
    uint64_t id;
};

struct row {
    uint64_t id, in, out;
};

struct conn;

struct side {
    struct conn *conn;
    struct side *again;  /* next in the list of those that may have more to read */
    char *waiting;       /* bytes that this side did not take yet: NULL, or of `length`, sent up to `at` */
    uint32_t at, length;
    uint64_t taken;      /* bytes that this side took */
    int fd;
    bool listed;         /* in the list of `again` */
    bool hung_up;        /* epoll told of the end: read until it is there */
    bool finished;       /* its end of file was read */
    bool told;           /* the other side's end of file was passed on to it */
};

struct conn {
    struct side client, backend;
    uint64_t id;
    struct conn *chain;           /* next in its bucket; after its end, in the list of the dead or of reports */
    struct conn *newer, *older;   /* all connections */
    struct conn *later, *sooner;  /* those whose backend has closed, by deadline */
    time_t deadline;              /* 0: not among them */
    uint64_t moved;               /* bytes taken by both sides when the deadline was set */
    enum reason reason;
    bool dead;
};

static int poller = -1, control = -1;
static uint32_t control_interest;
static bool deaf;            /* the front has closed the control socket, or its half: finish, then exit */
static bool mute;            /* nobody reads what is told */
static time_t linger = 60;

static struct conn *buckets[BUCKETS];
static struct conn *newest;
static uint64_t conns;
static struct conn *soonest, *latest;      /* of deadlines */
static struct conn *dead;                  /* freed when no event can name them any more */
static struct conn *reports, **last_report = &reports;
static struct conn refused;                /* in a report: one that there was no memory for */
static struct side *again, **last_again = &again;

static bool counting;        /* an answer to COUNTERS is under way */
static uint64_t count_id;
static struct conn *count_next;

static char buffer[CHUNK];
static union {
    struct header header;
    char bytes[sizeof(struct header) + 2 * INITIAL];
} message;

static void pump(struct side *from);

static struct side *other(struct side *side) {
    struct conn *conn = side->conn;
    return side == &conn->client ? &conn->backend : &conn->client;
}

static time_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    return time.tv_sec;
}

/* ---- the end of a connection */

static void forget_deadline(struct conn *conn) {
    if (!conn->deadline) return;
    *(conn->sooner ? &conn->sooner->later : &soonest) = conn->later;
    *(conn->later ? &conn->later->sooner : &latest) = conn->sooner;
    conn->deadline = 0;
}

static void set_deadline(struct conn *conn) {
    conn->deadline = now() + linger;
    conn->moved = conn->client.taken + conn->backend.taken;
    conn->later = NULL;
    conn->sooner = latest;
    *(latest ? &latest->later : &soonest) = conn;
    latest = conn;
}

static void close_side(struct side *side, bool reset) {
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (reset) setsockopt(side->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    /* By hand: close() leaves it to epoll as long as another process has the same socket. */
    epoll_ctl(poller, EPOLL_CTL_DEL, side->fd, NULL);
    close(side->fd);
    side->fd = -1;
    free(side->waiting);
    side->waiting = NULL;
}

static void end(struct conn *conn, enum reason reason, bool reset) {
    if (conn->dead) return;
    conn->dead = true;
    conn->reason = reason;
    close_side(&conn->client, reset);
    close_side(&conn->backend, reset);
    forget_deadline(conn);
    if (count_next == conn) count_next = conn->older;
    *(conn->newer ? &conn->newer->older : &newest) = conn->older;
    if (conn->older) conn->older->newer = conn->newer;
    struct conn **place = &buckets[conn->id % BUCKETS];
    while (*place != conn) place = &(*place)->chain;
    *place = conn->chain;
    conns--;
    conn->chain = dead;
    dead = conn;
}

static void lose(struct side *side) {
    /* Passed on as what it is. But once a side has finished it is no loss: farewells of TLS often meet a closed socket. */
    const bool over = side->finished || other(side)->finished;
    end(side->conn, over ? ENDED : side == &side->conn->client ? CLIENT_LOST : BACKEND_LOST, true);
}

/* ---- bytes */

/* Pass an end of file on, once all before it was taken. */
static void pass_end(struct side *to) {
    if (to->told || to->waiting) return;
    to->told = true;
    if (other(to)->told)
        end(to->conn, ENDED, false);
    else
        shutdown(to->fd, SHUT_WR);
}

/* What a side still has to say reaches the other one: a Postgres that ends a session says why, then resets. */
static void last_words(struct side *from) {
    struct side *to = other(from);
    while (!to->waiting) {
        const ssize_t got = recv(from->fd, buffer, CHUNK, MSG_DONTWAIT);
        from->finished = from->finished || got == 0;
        if (got <= 0) return;
        const ssize_t sent = send(to->fd, buffer, (size_t)got, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) to->taken += (uint64_t)sent;
        if (sent < got) return;
    }
}

/* False: it is not there any more. */
static bool give(struct side *to, const char *bytes, size_t length) {
    ssize_t sent = send(to->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            last_words(to);
            lose(to);
            return false;
        }
        sent = 0;
    }
    to->taken += (uint64_t)sent;
    if ((size_t)sent == length) return true;
    to->at = 0;
    to->length = (uint32_t)(length - (size_t)sent);
    to->waiting = malloc(to->length);
    if (!to->waiting) {
        end(to->conn, EXHAUSTED, true);
        return false;
    }
    memcpy(to->waiting, bytes + sent, to->length);
    return true;
}

static void take_turn_again(struct side *side) {
    if (side->listed) return;
    side->listed = true;
    side->again = NULL;
    *last_again = side;
    last_again = &side->again;
}

/* Move what has come. Edges are not repeated: read until nothing is left, or have another turn, or be told by flush(). */
static void pump(struct side *from) {
    struct side *to = other(from);
    for (int row = 0; row < IN_A_ROW; row++) {
        if (to->waiting || from->finished || from->conn->dead) return;
        const ssize_t got = recv(from->fd, buffer, CHUNK, MSG_DONTWAIT);
        if (got > 0) {
            if (!give(to, buffer, (size_t)got)) return;
            /* Less than asked for is all there was, and spares a call that says so. */
            if (got < CHUNK && !from->hung_up) return;
        } else if (got == 0) {
            from->finished = true;
            pass_end(to);
            return;
        } else {
            if (errno != EAGAIN) lose(from);
            return;
        }
    }
    take_turn_again(from);
}

/* Send what waits for a side; then the other one may be read again. */
static void flush(struct side *to) {
    const ssize_t sent = send(to->fd, to->waiting + to->at, to->length - to->at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == EAGAIN) return;
        free(to->waiting);
        to->waiting = NULL;
        last_words(to);
        lose(to);
        return;
    }
    to->taken += (uint64_t)sent;
    to->at += (uint32_t)sent;
    if (to->at < to->length) return;
    free(to->waiting);
    to->waiting = NULL;
    if (other(to)->finished)
        pass_end(to);
    else
        pump(other(to));
}

static void on_events(struct side *side, uint32_t events) {
    struct conn *conn = side->conn;
    if (conn->dead) return;
    if (events & EPOLLOUT && side->waiting) flush(side);
    if (conn->dead) return;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        /* Known here, though its end of file is not read while the client takes nothing. */
        if (side == &conn->backend && !side->hung_up) set_deadline(conn);
        side->hung_up = true;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pump(side);
    /* It may be reset while it is not read, because the other side takes nothing, or after its end of file. */
    if (events & EPOLLERR && !conn->dead && !side->listed) lose(side);
}

/* ---- the control socket */

static void watch_control(void) {
    if (control < 0) return;
    if (deaf && mute) {
        /* It would be reported as hung up for ever. */
        epoll_ctl(poller, EPOLL_CTL_DEL, control, NULL);
        close(control);
        control = -1;
        return;
    }
    /* Nothing more is taken on while answers wait; at most one for each connection can. */
    const uint32_t wanted = reports || counting ? EPOLLOUT : deaf ? 0 : EPOLLIN;
    if (wanted == control_interest) return;
    struct epoll_event event = {.events = wanted, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_MOD, control, &event);
    control_interest = wanted;
}

/* False: not now. */
static bool tell(const void *bytes, size_t length) {
    if (mute || send(control, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EINTR) return false;
    mute = true;
    return true;
}

static void report(struct conn *conn) {
    conn->chain = NULL;
    *last_report = conn;
    last_report = &conn->chain;
}

static void send_reports(void) {
    while (reports) {
        struct conn *conn = reports;
        const struct {
            struct header header;
            uint64_t in, out;
        } closed = {
            {.kind = CLOSED, .a = (uint32_t)conn->reason, .id = conn->id}, conn->backend.taken, conn->client.taken};
        if (!tell(&closed, sizeof closed)) return;
        reports = conn->chain;
        if (conn != &refused) free(conn);
    }
    last_report = &reports;
}

static void send_counters(void) {
    static struct {
        struct header header;
        struct row rows[ROWS];
    } answer;
    while (counting) {
        uint32_t rows = 0;
        struct conn *conn = count_next;
        for (; conn && rows < ROWS; conn = conn->older)
            answer.rows[rows++] = (struct row){conn->id, conn->backend.taken, conn->client.taken};
        answer.header = (struct header){.kind = COUNTERS, .a = rows, .b = !conn, .id = count_id};
        if (!tell(&answer, sizeof answer.header + rows * sizeof *answer.rows)) return;
        count_next = conn;
        counting = conn != NULL;
    }
}

/* No event of this round can name them any more: report, and free. */
static void bury(void) {
    struct side **place = &again;
    while (*place) {
        if ((*place)->conn->dead)
            *place = (*place)->again;
        else
            place = &(*place)->again;
    }
    last_again = place;
    while (dead) {
        struct conn *conn = dead;
        dead = conn->chain;
        report(conn);
    }
    send_reports();
}

/* The end of a backend that had much to say stays behind that while the client takes nothing. Its kernel gives up after
 * some minutes, without a word: only an answer to keepalive tells. Unix sockets know none of these, and need none. */
static void prepare(int fd) {
    static const int on = 1, idle = 60, interval = 10, tries = 6;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
}

static bool watch(struct side *side) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    return epoll_ctl(poller, EPOLL_CTL_ADD, side->fd, &event) == 0;
}

static struct conn *find(uint64_t id) {
    struct conn *conn = buckets[id % BUCKETS];
    while (conn && conn->id != id) conn = conn->chain;
    return conn;
}

/* Takes the fds, of which some may be -1: the kernel leaves them out when this process has too many. */
static void begin(uint64_t id, const int fds[2], size_t to_backend, size_t to_client) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        close(fds[0]);
        close(fds[1]);
        /* Free to take: there were no reports, or this message would not have been received. */
        refused = (struct conn){.id = id, .reason = EXHAUSTED};
        report(&refused);
        send_reports();
        return;
    }
    conn->id = id;
    conn->client.conn = conn->backend.conn = conn;
    conn->client.fd = fds[0];
    conn->backend.fd = fds[1];
    conn->chain = buckets[id % BUCKETS];
    buckets[id % BUCKETS] = conn;
    conn->older = newest;
    if (newest) newest->newer = conn;
    newest = conn;
    conns++;
    prepare(conn->client.fd);
    prepare(conn->backend.fd);
    if (!watch(&conn->client) || !watch(&conn->backend)) {
        end(conn, EXHAUSTED, true);
        return;
    }
    const char *first = message.bytes + sizeof(struct header);
    if (to_backend && !give(&conn->backend, first, to_backend)) return;
    /* What has come meanwhile is told by epoll, which reports a new socket's state as an edge. */
    if (to_client) give(&conn->client, first + to_backend, to_client);
}

static void on_message(size_t length, const int fds[2]) {
    const struct header *header = &message.header;
    if (length >= sizeof *header && header->kind == HANDOVER && header->a <= INITIAL && header->b <= INITIAL &&
        length == sizeof *header + header->a + header->b && !find(header->id)) {
        begin(header->id, fds, header->a, header->b);
        return;
    } else if (length == sizeof *header && header->kind == CUT) {
        struct conn *conn = find(header->id);
        if (conn) end(conn, WAS_CUT, true);
    } else if (length == sizeof *header && header->kind == COUNTERS) {
        counting = true;
        count_id = header->id;
        count_next = newest;
        send_counters();
    }
    close(fds[0]);
    close(fds[1]);
}

/* False: nothing more now. */
static bool receive_message(void) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } rights;
    struct iovec place = {.iov_base = message.bytes, .iov_len = sizeof message.bytes};
    struct msghdr envelope = {
        .msg_iov = &place, .msg_iovlen = 1, .msg_control = rights.bytes, .msg_controllen = sizeof rights.bytes};
    const ssize_t got = recvmsg(control, &envelope, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
        /* Messages of a front that is gone may still be there. */
        mute = mute || errno == ECONNRESET;
        return errno == ECONNRESET;
    }
    if (got == 0) {
        deaf = true;
        return false;
    }
    int fds[2] = {-1, -1};
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&envelope); part; part = CMSG_NXTHDR(&envelope, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t length = part->cmsg_len - CMSG_LEN(0);
        memcpy(fds, CMSG_DATA(part), length < sizeof fds ? length : sizeof fds);
    }
    on_message((size_t)got, fds);
    return true;
}

static void on_control(uint32_t events) {
    if (deaf && events & EPOLLHUP) mute = true;
    send_reports();
    if (!reports) send_counters();
    for (int number = 0; number < MESSAGES && !deaf && !reports && !counting; number++)
        if (!receive_message()) return;
}

/* ---- the loop */

static int patience(void) {
    if (again) return 0;
    if (!soonest) return -1;
    const time_t left = soonest->deadline - now();
    return left <= 0 ? 0 : (int)(left > 3600 ? 3600 : left) * 1000;
}

static void expire(void) {
    while (soonest && soonest->deadline <= now()) {
        struct conn *conn = soonest;
        if (conn->moved == conn->client.taken + conn->backend.taken) {
            end(conn, conn->client.told ? ENDED : CLIENT_LOST, !conn->client.told);
        } else {
            forget_deadline(conn);
            set_deadline(conn);
        }
    }
}

static void next_turns(void) {
    struct side *side = again;
    again = NULL;
    last_again = &again;
    while (side) {
        struct side *next = side->again;
        side->listed = false;
        if (!side->conn->dead) pump(side);
        side = next;
    }
}

static void serve(void) {
    static struct epoll_event events[EVENTS];
    while (conns || !deaf || (reports && !mute)) {
        const int count = epoll_wait(poller, events, EVENTS, patience());
        uint32_t from_control = 0;
        for (int number = 0; number < count; number++) {
            struct side *side = events[number].data.ptr;
            if (side)
                on_events(side, events[number].events);
            else
                from_control = events[number].events;
        }
        if (from_control) on_control(from_control);
        if (again) next_turns();
        if (soonest) expire();
        if (dead) bury();
        watch_control();
    }
}

/* Two fds a connection, and a few of the relay's own. */
static uint32_t capacity(rlim_t files) {
    return files < 16 ? 0 : (uint32_t)((files > UINT32_MAX ? UINT32_MAX : files) - 16) / 2;
}

/* How many connections there may be. */
static uint32_t raise_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
    /* Root may have more than its hard limit: two fds a connection. */
    const rlim_t wanted = 262144;
    if (files.rlim_max < wanted) {
        const struct rlimit more = {.rlim_cur = wanted, .rlim_max = wanted};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) return capacity(wanted);
    }
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    return capacity(files.rlim_max);
}

/* Give up root's rights, for ever. */
static bool become(const char *user, const char *group) {
    const bool done = setgroups(0, NULL) == 0 && setgid((gid_t)strtoul(group, NULL, 10)) == 0 &&
                      setuid((uid_t)strtoul(user, NULL, 10)) == 0;
    /* Others of that user may not look into it; and root still knows it by whose its files in /proc are. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return done;
}

int main(int count, char **words) {
    control = count > 1 ? atoi(words[1]) : 3;
    if (count > 2) linger = atoi(words[2]);
    const uint32_t room = raise_limit();
    if (count > 4 && !become(words[3], words[4])) {
        perror("lamp-relay: another user");
        return 2;
    }
    prctl(PR_SET_NAME, "lamp-relay", 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    control_interest = EPOLLIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, control, &event) != 0) {
        perror("lamp-relay: no control socket");
        return 2;
    }
    const struct header ready = {.kind = READY, .a = PROTOCOL, .b = room};
    tell(&ready, sizeof ready);
    serve();
    return 0;
}
