/* Transaction ids: made where the write lock is granted, unique in the cluster without luck, and telling of themselves when their transaction is lost.
 *
 *   bytes 0..5    term in which the leader granted the lock
 *   bytes 6..11   index that was published at the leader at the grant: the transaction's entries are above it
 *   bytes 12..15  number of the grant in that term, from 1, modulo 2^32; every grant of the leader counts, its own connections' too
 *   All big-endian, so that ids of one term sort by index. As text: 32 hex digits, lower case; upper case is understood.
 *
 * Rules:
 * - A term has one leader (I1), which numbers its grants: no two grants have one id. (Between two grants of the same number modulo 2^32 an entry is published, or four thousand million
 *   transactions in a row changed nothing.)
 * - A proposal is valid only in the term of its grant, so an entry with an id of term T is of term T. When the first entry of a later term is applied and the id was not seen, it never
 *   will be: its transaction is lost. (ledger.h)
 * - Term 0 is nobody's: sixteen zeros are no id. */
#ifndef SHELL_TXID_H
#define SHELL_TXID_H

#include "vfs/pageset.h"

#define SHELL_TXID_TEXT (2 * VFS_TXID_BYTES + 1) /* with its NUL */

struct shell_txid { uint64_t term, index; uint32_t number; };

void shell_txid_put(const struct shell_txid *id, uint8_t dst[VFS_TXID_BYTES]); /* term and index below 2^48 */
void shell_txid_get(const uint8_t src[VFS_TXID_BYTES], struct shell_txid *ret_id);
void shell_txid_text(const uint8_t src[VFS_TXID_BYTES], char dst[SHELL_TXID_TEXT]);
/* False: not 32 hex digits, or of term 0; ret_id is untouched then. */
bool shell_txid_parse(const char *text, size_t len, uint8_t ret_id[VFS_TXID_BYTES]);

/* Numbers the grants of a node; all zeros to begin with. Not locked: the caller's. */
struct shell_txid_source { uint64_t term, number; };
/* The id of the next grant, given in `term`, which this node leads, with `index` published. Returns its number in the term. Terms never go back. */
uint64_t shell_txid_next(struct shell_txid_source *s, uint64_t term, uint64_t index, uint8_t ret_id[VFS_TXID_BYTES]);

#endif
