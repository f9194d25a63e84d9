/* An env that puts syncs off until the one rename that they are for. Files that are made one after the other and synced each in its turn cost the file system a
 * transaction each; written first and synced together they cost one. */
#include "shell/setup_impl.h"

#include <stdlib.h>
#include <string.h>

static struct setup_later *later_of(void *ctx)
{
	return ctx;
}

static const struct wire_env *real_of(void *ctx)
{
	return later_of(ctx)->real;
}

static int later_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	return real_of(ctx)->open(real_of(ctx)->ctx, path, flags, ret_file, err);
}

static int later_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	return real_of(ctx)->write(real_of(ctx)->ctx, f, src, n, at, err);
}

static int later_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	return real_of(ctx)->truncate(real_of(ctx)->ctx, f, size, err);
}

static int later_unlink(void *ctx, const char *path, struct wire_err *err)
{
	return real_of(ctx)->unlink(real_of(ctx)->ctx, path, err);
}

static int later_mkdir(void *ctx, const char *path, struct wire_err *err)
{
	return real_of(ctx)->mkdir(real_of(ctx)->ctx, path, err);
}

static int later_list(void *ctx, const char *path, int (*each)(void *arg, const char *name), void *arg, struct wire_err *err)
{
	return real_of(ctx)->list(real_of(ctx)->ctx, path, each, arg, err);
}

static bool is_owed(const struct setup_later *l, const struct wire_file *f)
{
	for (uint32_t i = 0; i < l->n_files; i++)
		if (l->files[i] == f)
			return true;
	return false;
}

static int later_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	struct setup_later *l = ctx;

	if (is_owed(l, f))
		return WIRE_OK;
	if (l->n_files == SETUP_LATER_MAX)
		return l->real->sync(l->real->ctx, f, err);
	l->files[l->n_files++] = f;
	return WIRE_OK;
}

static void later_close(void *ctx, struct wire_file *f)
{
	struct setup_later *l = ctx;

	if (!is_owed(l, f))
		l->real->close(l->real->ctx, f);
}

static int later_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	struct setup_later *l = ctx;

	for (uint32_t i = 0; i < l->n_dirs; i++)
		if (!strcmp(l->dirs[i], path))
			return WIRE_OK;
	if (l->n_dirs == SETUP_LATER_MAX || l->last_done)
		return l->real->sync_dir(l->real->ctx, path, err);
	if (!(l->dirs[l->n_dirs] = strdup(path)))
		return wire_fail(err, WIRE_NOMEM, "no memory for a path");
	l->n_dirs++;
	return WIRE_OK;
}

void setup_later_end(struct setup_later *l)
{
	for (uint32_t i = 0; i < l->n_files; i++)
		l->real->close(l->real->ctx, l->files[i]);
	for (uint32_t i = 0; i < l->n_dirs; i++)
		free(l->dirs[i]);
	l->n_files = l->n_dirs = 0;
}

static int later_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	struct setup_later *l = ctx;
	int rc = WIRE_OK;

	if (!strcmp(to, l->last)) {
		for (uint32_t i = 0; i < l->n_files && !rc; i++)
			rc = l->real->sync(l->real->ctx, l->files[i], err);
		for (uint32_t i = 0; i < l->n_dirs && !rc; i++)
			rc = l->real->sync_dir(l->real->ctx, l->dirs[i], err);
		setup_later_end(l);
		l->last_done = true;
	}
	return rc ? rc : l->real->rename(l->real->ctx, from, to, err);
}

void setup_later_begin(struct setup_later *l, const struct wire_env *real, const char *last)
{
	*l = (struct setup_later){ .real = real, .last = last };
	l->env = (struct wire_env){
		.ctx = l,
		.open = later_open,
		.close = later_close,
		.write = later_write,
		.sync = later_sync,
		.truncate = later_truncate,
		.rename = later_rename,
		.unlink = later_unlink,
		.mkdir = later_mkdir,
		.sync_dir = later_sync_dir,
		.list = later_list,
	};
}
