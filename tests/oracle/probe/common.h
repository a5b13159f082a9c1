#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <fcntl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <dirent.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <sys/utsname.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#ifndef KVM_DEV_VFIO_FILE
#define KVM_DEV_VFIO_FILE 1
#endif
typedef uint64_t u64; typedef uint32_t u32; typedef uint8_t u8; typedef int32_t i32;
extern const char *SEC; /* current section */
/* one JSON line. outf may be NULL, else a printf format giving the inside of "out" */
void L(const char*name,long ret,int err,const char*outf,...) __attribute__((format(printf,4,5)));
#define BADP ((void*)0x10) /* unmapped user pointer */
/* evaluate call, log; value returned */
#define R(name,call) ({errno=0;long _r=(long)(call);int _e=_r<0?errno:0;L(name,_r,_e,NULL);_r;})
#define RO(name,call,...) ({errno=0;long _r=(long)(call);int _e=_r<0?errno:0;L(name,_r,_e,__VA_ARGS__);_r;})
/* fd-creating call: log ret as 0/1 "fd" */
#define RFD(name,call) ({errno=0;long _r=(long)(call);int _e=_r<0?errno:0;L(name,_r<0?_r:0,_e,_r<0?NULL:"\"fd\":true");_r;})
static inline char*fmt(const char*f,...){static char b[16][160];static int i;i=(i+1)&15;va_list a;va_start(a,f);vsnprintf(b[i],160,f,a);va_end(a);return b[i];}
static inline int efd(void){return eventfd(0,EFD_NONBLOCK|EFD_CLOEXEC);}
static inline void tick(void){usleep(30000);}
/* read counter after a settle: count, 0 if nothing */
static inline long er(int fd){tick();u64 v=0;ssize_t r=read(fd,&v,8);return r==8?(long)v:0;}
static inline void ew(int fd){u64 v=1;if(write(fd,&v,8)!=8)L("INTERNAL-eventfd-write",-1,errno,NULL);}
static inline int dattr(int fd,unsigned long req,u32 g,u64 a,void*p){struct kvm_device_attr d={.group=g,.attr=a,.addr=(u64)(uintptr_t)p};return ioctl(fd,req,&d);}
#define SETA(fd,g,a,p) dattr(fd,KVM_SET_DEVICE_ATTR,g,a,p)
#define GETA(fd,g,a,p) dattr(fd,KVM_GET_DEVICE_ATTR,g,a,p)
#define HASA(fd,g,a) dattr(fd,KVM_HAS_DEVICE_ATTR,g,a,0)
static inline int mkvm(void){int k=open("/dev/kvm",O_RDWR|O_CLOEXEC);int v=ioctl(k,KVM_CREATE_VM,0);close(k);return v;}
static inline int crdev(int vm,u32 type,u32 flags,int*out){struct kvm_create_device c={.type=type,.flags=flags,.fd=0x5a5a};int r=ioctl(vm,KVM_CREATE_DEVICE,&c);if(out)*out=r<0?-1:(int)c.fd;return r;}
static inline int irqfd(int vm,int fd,u32 gsi,u32 flags,int rs){struct kvm_irqfd q={.fd=(u32)fd,.gsi=gsi,.flags=flags,.resamplefd=(u32)rs};return ioctl(vm,KVM_IRQFD,&q);}
static inline int irqline(int vm,u32 irq,u32 lvl){struct kvm_irq_level q={.irq=irq,.level=lvl};return ioctl(vm,KVM_IRQ_LINE,&q);}
int wanted(const char*section); /* was it asked for on the command line */
void sec_kvm(void),sec_mem(void),sec_kvmvfio(void),sec_irqfd(void);
void sec_arm(void),sec_vgic(void),sec_guest(void);
void sec_vfio(void);
