/* In the place of what bubblewrap's own build would write: no SELinux; the version comes from make.
 */
#include <limits.h> /* PATH_MAX, which glibc's headers bring by accident */
