/* The fast path for a page of segments: its rows kept as the bytes received.
 *
 * `scan` accepts only rows of the plainest form: compact, the known fields in the order of the wire, no field twice,
 * strings without escapes, integers of at most 18 digits in JSON's form. Such a row is its own JSON Line: decoding and
 * encoding it again would give the same bytes. For anything else it returns the position of the first row that it does
 * not accept, and the page is decoded as JSON.
 * The bytes around the rows are not examined here.
 *
 * No byte beyond the buffer is read, and only memory allocated here is written; tests compare the results with those
 * of the fallback's decoder, on randomly damaged pages.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS 512
#define MOST_DIGITS 18
#define LONGEST 0x7fffffff

typedef const unsigned char *Place;

typedef struct {
    Place start, id;
    uint32_t length, id_length;
    int64_t closed;
} Row;

typedef enum { TEXT, NUMBER } Kind;

typedef struct {
    const char *name; /* with its quotes and colon */
    uint32_t length;
    Kind kind;
    int required;
} Field;

#define FIELD(name, kind, required) {"\"" name "\":", sizeof(name) + 2, kind, required}

static const Field FIELDS[] = {
    FIELD("segmentId", TEXT, 1),
    FIELD("startTimeL", NUMBER, 0),
    FIELD("endTimeL", NUMBER, 1),
    FIELD("conversationId", TEXT, 0),
    FIELD("agentId", NUMBER, 0),
    FIELD("employeeId", TEXT, 0),
    FIELD("skillId", NUMBER, 0),
    FIELD("groupId", NUMBER, 0),
    FIELD("endReason", TEXT, 0),
    FIELD("totalHandleTimeMillis", NUMBER, 0),
    FIELD("endTime", TEXT, 0),
    FIELD("startTime", TEXT, 0),
};
enum { ID = 0, CLOSED = 2, FIELD_COUNT = sizeof(FIELDS) / sizeof(FIELDS[0]) };

static uint64_t word_at(Place at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The index of the lowest mark among eight bytes, 8 if there is none; 0 if the byte order is not known. */
static int lowest(uint64_t marks)
{
    if (marks == 0)
        return 8;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_ctzll(marks) >> 3;
#else
    return 0;
#endif
}

static int is_utf8(Place begin, Place end)
{
    PyObject *text = PyUnicode_DecodeUTF8((const char *)begin, end - begin, "strict");
    if (text == NULL)
        PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

/* Set the top bit of each byte that is zero. A byte above a zero may be marked wrongly; the lowest mark is right. */
static uint64_t zeros(uint64_t word)
{
    return (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
}

/* The number of the eight characters at `at` before one that ends a string or needs a closer look: a quote, a
 * backslash, a control character, or one that is not ASCII.
 */
static int plain_ahead(Place at)
{
    uint64_t word = word_at(at);
    uint64_t controls = (word - 0x2020202020202020u) & ~word & 0x8080808080808080u;
    uint64_t marks = zeros(word ^ 0x2222222222222222u) | zeros(word ^ 0x5c5c5c5c5c5c5c5cu) | controls;
    return lowest(marks | (word & 0x8080808080808080u));
}

/* The closing quote of the string whose first character is at `at`, or NULL. */
static Place text_end(Place at, Place end)
{
    Place begin = at;
    int ascii = 1;
    for (;;) {
        for (int ahead = 8; ahead == 8 && end - at >= 8; at += ahead)
            ahead = plain_ahead(at);
        if (at >= end)
            return NULL;
        if (*at == '"')
            break;
        if (*at < 0x20 || *at == '\\')
            return NULL;
        ascii &= *at < 0x80;
        at++;
    }
    return ascii || is_utf8(begin, at) ? at : NULL;
}

/* The number of digits among the eight characters at `at`, before the first other character. */
static int digits_ahead(Place at)
{
    uint64_t word = word_at(at);
    return lowest(((word - 0x3030303030303030u) | (word + 0x4646464646464646u)) & 0x8080808080808080u);
}

/* The position after the integer at `at`, or NULL. */
static Place number_end(Place at, Place end)
{
    int negative = at < end && *at == '-';
    Place first = at += negative;
    for (int ahead = 8; ahead == 8 && end - at >= 8; at += ahead)
        ahead = digits_ahead(at);
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    int digits = at - first <= MOST_DIGITS ? (int)(at - first) : 0;
    return digits == 0 || (*first == '0' && (digits > 1 || negative)) ? NULL : at;
}

/* The value of an integer that `number_end` has accepted. */
static int64_t number_in(Place at, Place end)
{
    int negative = *at == '-';
    int64_t sum = 0;
    for (at += negative; at < end; at++)
        sum = sum * 10 + (*at - '0');
    return negative ? -sum : sum;
}

static Place value_end(Place at, Place end, int which, Row *row)
{
    Place begin = at;
    if (!FIELDS[which].required && end - at >= 4 && memcmp(at, "null", 4) == 0)
        return at + 4;
    if (FIELDS[which].kind == TEXT) {
        if (at >= end || *at != '"')
            return NULL;
        at = text_end(at + 1, end);
        if (at != NULL && which == ID) {
            row->id = begin + 1;
            row->id_length = (uint32_t)(at - row->id);
        }
        return at == NULL ? NULL : at + 1;
    }
    at = number_end(at, end);
    if (at != NULL && which == CLOSED)
        row->closed = number_in(begin, at);
    return at;
}

/* The position after the row that begins at `at`, or NULL. */
static Place row_end(Place at, Place end, Row *row)
{
    int which = 0;
    row->start = at;
    if (at >= end || *at++ != '{')
        return NULL;
    for (;;) {
        while (end - at < FIELDS[which].length || memcmp(at, FIELDS[which].name, FIELDS[which].length) != 0) {
            if (FIELDS[which].required || ++which == FIELD_COUNT)
                return NULL;
        }
        at = value_end(at + FIELDS[which].length, end, which, row);
        if (at == NULL || at >= end)
            return NULL;
        which++;
        if (*at == '}')
            break;
        if (*at++ != ',' || which == FIELD_COUNT)
            return NULL;
    }
    if (which <= CLOSED)
        return NULL;
    row->length = (uint32_t)(++at - row->start);
    return at;
}

/* Find the rows from `at` on, as sent; return their number, with `*tail` at the array's closing bracket; or 0, with
 * `*tail` at the first row that is not accepted.
 */
static int read_rows(Place at, Place end, Row *rows, Place *tail)
{
    for (int count = 0; count < MOST_ROWS;) {
        *tail = at;
        at = row_end(at, end, &rows[count]);
        if (at == NULL || at >= end)
            return 0;
        if (count && rows[count].closed > rows[count - 1].closed)
            return 0;
        count++;
        if (*at == ']') {
            *tail = at;
            return count;
        }
        if (*at++ != ',')
            return 0;
    }
    return 0;
}

static int is_before(const Row *one, const Row *other)
{
    if (one->closed != other->closed)
        return one->closed < other->closed;
    uint32_t shared = one->id_length < other->id_length ? one->id_length : other->id_length;
    int order = memcmp(one->id, other->id, shared);
    return order ? order < 0 : one->id_length < other->id_length;
}

/* Sort rows, newest first, into the written order: oldest first, ties by id, equal ids in reverse order of sending. */
static void put_in_order(const Row *rows, const Row **order, int count)
{
    for (int i = 0; i < count; i++) {
        const Row *row = &rows[count - 1 - i];
        int at = i;
        for (; at > 0 && is_before(row, order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = row;
    }
}

static uint64_t mixed(uint64_t hash, uint64_t word)
{
    hash ^= word;
    hash = (hash ^ (hash >> 32)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

/* A hash of an id: 64 bits, the same for the same bytes. */
static uint64_t key_of(Place at, size_t length)
{
    uint64_t hash = length, word = 0;
    for (; length >= 8; at += 8, length -= 8)
        hash = mixed(hash, word_at(at));
    memcpy(&word, at, length);
    return mixed(mixed(hash, word), 0x94d049bb133111ebu);
}

static PyObject *rows_found(const Row **order, int count, Py_ssize_t tail)
{
    int64_t times[MOST_ROWS];
    uint64_t keys[MOST_ROWS];
    uint32_t starts[MOST_ROWS + 1];
    uint64_t size = 0;
    int falling = 1;
    for (int i = 0; i < count; i++) {
        const Row *newest = order[count - 1 - i];
        times[i] = newest->closed;
        keys[i] = key_of(newest->id, newest->id_length);
        falling &= !i || times[i - 1] > times[i];
        starts[i] = (uint32_t)size;
        size += order[i]->length + 1;
    }
    starts[count] = (uint32_t)size;
    PyObject *lines = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (lines == NULL)
        return NULL;
    char *to = PyBytes_AsString(lines);
    for (int i = 0; i < count; i++) {
        memcpy(to + starts[i], order[i]->start, order[i]->length);
        to[starts[i + 1] - 1] = '\n';
    }
    return Py_BuildValue("nNy#y#y#N", tail, lines, (const char *)starts, (Py_ssize_t)((count + 1) * 4),
                         (const char *)times, (Py_ssize_t)(count * 8), (const char *)keys, (Py_ssize_t)(count * 8),
                         PyBool_FromLong(falling));
}

static PyObject *scan_buffer(Place begin, Py_ssize_t length, Py_ssize_t head)
{
    Row rows[MOST_ROWS];
    const Row *order[MOST_ROWS];
    Place tail = begin;
    int count = 0;
    if (head >= 0 && head < length && length <= LONGEST)
        count = read_rows(begin + head, begin + length, rows, &tail);
    if (count == 0)
        return PyLong_FromSsize_t(tail - begin);
    put_in_order(rows, order, count);
    return rows_found(order, count, tail - begin);
}

static PyObject *scan(PyObject *module, PyObject *args)
{
    PyObject *object, *found;
    Py_buffer body;
    Py_ssize_t head;
    if (!PyArg_ParseTuple(args, "On", &object, &head) || PyObject_GetBuffer(object, &body, PyBUF_SIMPLE) < 0)
        return NULL;
    found = scan_buffer(body.buf, body.len, head);
    PyBuffer_Release(&body);
    return found;
}

typedef struct {
    uint64_t *places; /* 0 in an empty place */
    uint64_t mask;    /* the number of places less one; there are more than twice as many places as keys */
    int has_zero;
    Py_ssize_t count;
} KeySet;

static void add_key(KeySet *set, uint64_t key)
{
    uint64_t at = (key * 0x9e3779b97f4a7c15u >> 20) & set->mask;
    if (key == 0) {
        set->count += !set->has_zero;
        set->has_zero = 1;
        return;
    }
    while (set->places[at] != 0 && set->places[at] != key)
        at = (at + 1) & set->mask;
    set->count += set->places[at] == 0;
    set->places[at] = key;
}

/* Add the keys of each column to the set, or count them if there is none; -1 with an error set if one is no column. */
static Py_ssize_t each_key(PyObject *columns, KeySet *set)
{
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(columns); i++) {
        Py_buffer column;
        if (PyObject_GetBuffer(PyList_GetItem(columns, i), &column, PyBUF_SIMPLE) < 0)
            return -1;
        Py_ssize_t rows = column.len / 8;
        for (Py_ssize_t row = 0; set != NULL && row < rows; row++)
            add_key(set, word_at((Place)column.buf + 8 * row));
        total += rows;
        PyBuffer_Release(&column);
    }
    return total;
}

static PyObject *distinct(PyObject *module, PyObject *columns)
{
    if (!PyList_Check(columns)) {
        PyErr_SetString(PyExc_TypeError, "columns: must be a list");
        return NULL;
    }
    Py_ssize_t total = each_key(columns, NULL);
    if (total < 0)
        return NULL;
    KeySet set = {NULL, 15, 0, 0};
    while (set.mask < 2 * (uint64_t)total)
        set.mask = 2 * set.mask + 1;
    set.places = calloc(set.mask + 1, sizeof *set.places);
    if (set.places == NULL)
        return PyErr_NoMemory();
    Py_ssize_t added = each_key(columns, &set);
    free(set.places);
    return added < 0 ? NULL : PyLong_FromSsize_t(set.count);
}

static PyObject *key(PyObject *module, PyObject *id)
{
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(id, &bytes, &length) < 0)
        return NULL;
    return PyLong_FromLongLong((long long)key_of((Place)bytes, (size_t)length));
}

static PyMethodDef METHODS[] = {
    {"scan", scan, METH_VARARGS, NULL},
    {"key", key, METH_O, NULL},
    {"distinct", distinct, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* Multi-phase initialisation: the module has no state, so every interpreter can have one of its own. */
static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "segment_fetch.wire._scanner", NULL, 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scanner(void)
{
    return PyModuleDef_Init(&MODULE);
}
