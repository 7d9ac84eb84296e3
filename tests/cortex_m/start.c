/* Start-up for an Arm Cortex-M3 under QEMU (board mps2-an385), with output through semihosting. */
#include <stdint.h>

extern uint32_t stack_top, data_load, data_start, data_end, bss_start, bss_end;
int main(void);

static int semihost(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void print(const char *text) { semihost(0x04, text); } /* SYS_WRITE0 */

void print_number(int32_t value) {
  char text[13], *p = text + sizeof text;
  uint32_t left = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
  *--p = 0;
  *--p = '\n';
  do
    *--p = (char)('0' + left % 10);
  while ((left /= 10) != 0);
  if (value < 0)
    *--p = '-';
  print(p);
}

void reset(void) {
  const uint32_t *from = &data_load;
  for (uint32_t *to = &data_start; to < &data_end;)
    *to++ = *from++;
  for (uint32_t *to = &bss_start; to < &bss_end;)
    *to++ = 0;
  main();
  semihost(0x18, (const void *)0x20026); /* SYS_EXIT, stopped by the application */
}

static void fault(void) {
  print("fault\n");
  semihost(0x18, (const void *)0x20023);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    &stack_top, (const void *)reset, (const void *)fault, (const void *)fault};

/* What compilers may call in freestanding programs. */
void *memset(void *to, int value, unsigned size) {
  for (unsigned char *p = to; size--;)
    *p++ = (unsigned char)value;
  return to;
}

void *memcpy(void *to, const void *from, unsigned size) {
  const unsigned char *q = from;
  for (unsigned char *p = to; size--;)
    *p++ = *q++;
  return to;
}
