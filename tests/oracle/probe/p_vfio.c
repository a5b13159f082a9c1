#include "common.h"
#if defined(__aarch64__) || defined(PROBE_ARM)
int e2e_boot(void);long e2e_iar(void);void e2e_eoi(u32);long e2e_isr(void);void e2e_cfg(u32);
void unk(const char*,int);
static int grp_of(const char*bus,const char*dev,char*path){char p[256],l[256];sprintf(p,"/sys/bus/%s/devices/%s/iommu_group",bus,dev);int n=readlink(p,l,255);if(n<0){path[0]=0;return -1;}l[n]=0;sprintf(path,"/dev/vfio/%s",strrchr(l,'/')+1);return 0;}
static int sirq(int d,u32 argsz,u32 fl,u32 ix,u32 st,u32 cn,const void*data,int dl){static u8 b[4096] __attribute__((aligned(8)));memset(b,0,sizeof b);struct vfio_irq_set*s=(void*)b;s->argsz=argsz;s->flags=fl;s->index=ix;s->start=st;s->count=cn;if(data)memcpy(s->data,data,dl);return ioctl(d,VFIO_DEVICE_SET_IRQS,s);}
#define HS ((u32)sizeof(struct vfio_irq_set))
static int sfd(int d,u32 act,u32 ix,u32 st,i32 fd){return sirq(d,HS+4,VFIO_IRQ_SET_DATA_EVENTFD|act,ix,st,1,&fd,4);}
static int snone(int d,u32 act,u32 ix,u32 st,u32 cn){return sirq(d,HS,VFIO_IRQ_SET_DATA_NONE|act,ix,st,cn,0,0);}
static int sbool(int d,u32 act,u32 ix,u8 v){return sirq(d,HS+1,VFIO_IRQ_SET_DATA_BOOL|act,ix,0,1,&v,1);}
#define MASK VFIO_IRQ_SET_ACTION_MASK
#define UNMASK VFIO_IRQ_SET_ACTION_UNMASK
#define TRIG VFIO_IRQ_SET_ACTION_TRIGGER
struct dev{int c,g,d;};
static struct dev opendev(const char*bus,const char*name){struct dev x;char p[64];grp_of(bus,name,p);x.c=open("/dev/vfio/vfio",O_RDWR);x.g=open(p,O_RDWR);x.d=-1;if(x.g<0){L("INTERNAL-open-group",-1,errno,NULL);return x;}if(ioctl(x.g,VFIO_GROUP_SET_CONTAINER,&x.c))L("INTERNAL-setcont",-1,errno,NULL);if(ioctl(x.c,VFIO_SET_IOMMU,VFIO_TYPE1v2_IOMMU))L("INTERNAL-setiommu",-1,errno,NULL);x.d=ioctl(x.g,VFIO_GROUP_GET_DEVICE_FD,name);if(x.d<0)L("INTERNAL-getfd",-1,errno,"\"dev\":\"%s\"",name);return x;}
static void closedev(struct dev*x){close(x->d);close(x->g);close(x->c);}
#define PL "9010000.oracle-rtc"
#define PM "9030000.oracle-multi"
#define EDU "0000:00:01.0"
#define E1K "0000:00:02.0"
#define TST "0000:00:03.0"
static const char*actn(u32 a){static char b[4][32];static int i;i=(i+1)&3;b[i][0]=0;if(!a)strcpy(b[i],"noaction");if(a&MASK)strcat(b[i],"MASK.");if(a&UNMASK)strcat(b[i],"UNMASK.");if(a&TRIG)strcat(b[i],"TRIGGER.");return b[i];}
static const char*datn(u32 f){static char b[4][32];static int i;i=(i+1)&3;b[i][0]=0;if(!(f&7))strcpy(b[i],"nodata");if(f&1)strcat(b[i],"NONE.");if(f&2)strcat(b[i],"BOOL.");if(f&4)strcat(b[i],"EVENTFD.");return b[i];}
/* put index back to a clean state */
static void clean(int d,u32 ix){snone(d,UNMASK,ix,0,1);sfd(d,MASK,ix,0,-1);sfd(d,UNMASK,ix,0,-1);snone(d,TRIG,ix,0,0);}
static void matrix(const char*pfx,int d,u32 ix,int nirq){
 u32 dat[]={0,1,2,4,3,6,7},act[]={0,MASK,UNMASK,TRIG,MASK|UNMASK,MASK|TRIG,UNMASK|TRIG,MASK|UNMASK|TRIG};
 struct{u32 s,c;}sc[]={{0,0},{0,1},{1,0},{1,1},{0,2},{0,0xfffffffe},{0,0xffffffff},{0xffffffff,0},{0xffffffff,1},{0x7fffffff,1}};
 for(int armed=0;armed<2;armed++)for(unsigned a=0;a<sizeof act/4;a++)for(unsigned f=0;f<sizeof dat/4;f++)for(unsigned q=0;q<sizeof sc/sizeof*sc;q++){
  if(armed&&(q>4||(f>3)||(a>3)))continue; if(a>3&&(q>2||f>4))continue;
  clean(d,ix);int te=efd();if(armed){if(sfd(d,TRIG,ix,0,te)){close(te);continue;}}
  i32 fds[4];for(int i=0;i<4;i++)fds[i]=efd();u8 bl[4]={1,1,1,1};u32 fl=dat[f]|act[a];u32 sz=dat[f]==2?sc[q].c:dat[f]==4?sc[q].c*4:dat[f]==1||dat[f]==0?0:16;if(sz>4096)sz=3000;
  errno=0;int r=sirq(d,HS+sz,fl,ix,sc[q].s,sc[q].c,dat[f]==2?(void*)bl:(void*)fds,dat[f]==2?4:16);int e=r<0?errno:0;
  u64 v=0;long fired=read(te,&v,8)==8?(long)v:0;
  L(fmt("%s/matrix/%s/%s/%s/s%u_c%u",pfx,armed?"armed":"cold",actn(act[a]),datn(dat[f]),sc[q].s,sc[q].c),r,e,armed?"\"fired\":%ld":NULL,fired);
  clean(d,ix);for(int i=0;i<4;i++)close(fds[i]);close(te);}
 (void)nirq;
}
static void edge(const char*pfx,int d,u32 ix,int nidx){
 i32 f=efd(),f2=efd();
 R(fmt("%s/null",pfx),ioctl(d,VFIO_DEVICE_SET_IRQS,NULL));
 for(u32 as=0;as<24;as+=(as==0?16:as<19?3:1))R(fmt("%s/argsz_%u_none_trigger_c0",pfx,as),sirq(d,as,1|TRIG,ix,0,0,0,0));
 for(u32 as=19;as<26;as++)R(fmt("%s/argsz_%u_eventfd",pfx,as),sirq(d,as,4|TRIG,ix,0,1,&f,4));clean(d,ix);
 for(u32 as=19;as<23;as++){u8 b=0;R(fmt("%s/argsz_%u_bool0_trigger",pfx,as),sirq(d,as,2|TRIG,ix,0,1,&b,1));}
 R(fmt("%s/argsz_4096_eventfd",pfx),sirq(d,4096,4|TRIG,ix,0,1,&f,4));clean(d,ix);R(fmt("%s/argsz_max_eventfd",pfx),sirq(d,0xffffffff,4|TRIG,ix,0,1,&f,4));clean(d,ix);
 R(fmt("%s/flag_bit6",pfx),sirq(d,HS,1|TRIG|64,ix,0,0,0,0));R(fmt("%s/flag_bit31",pfx),sirq(d,HS,1|TRIG|1u<<31,ix,0,0,0,0));
 for(int i=nidx-1;i<nidx+2;i++)R(fmt("%s/index_%d_none_trigger_c0(nidx=%d)",pfx,i,nidx),snone(d,TRIG,i,0,0));R(fmt("%s/index_max",pfx),snone(d,TRIG,0xffffffff,0,0));
 i32 bad[]={-1,-2,777,0x7fffffff,open("/dev/null",O_RDWR),d};const char*bn[]={"-1","-2","closed777","intmax","devnull","devicefd"};u32 ac[]={TRIG,MASK,UNMASK};
 for(int a=0;a<3;a++)for(int i=0;i<6;i++){R(fmt("%s/cold/%s/efd_%s",pfx,actn(ac[a]),bn[i]),sfd(d,ac[a],ix,0,bad[i]));clean(d,ix);}
 for(int a=0;a<3;a++)for(int i=0;i<6;i++){sfd(d,TRIG,ix,0,f);R(fmt("%s/armed/%s/efd_%s",pfx,actn(ac[a]),bn[i]),sfd(d,ac[a],ix,0,bad[i]));er(f);RO(fmt("%s/armed/%s/efd_%s/then_loopback",pfx,actn(ac[a]),bn[i]),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));clean(d,ix);}
 R(fmt("%s/trigger_set",pfx),sfd(d,TRIG,ix,0,f));R(fmt("%s/trigger_set_same_again",pfx),sfd(d,TRIG,ix,0,f));R(fmt("%s/trigger_replace",pfx),sfd(d,TRIG,ix,0,f2));RO(fmt("%s/loopback_after_replace",pfx),snone(d,TRIG,ix,0,1),"\"old\":%ld,\"new\":%ld",er(f),er(f2));clean(d,ix);
 for(int a=1;a<3;a++){sfd(d,TRIG,ix,0,f);R(fmt("%s/%s/set",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,f2));R(fmt("%s/%s/set_same_again",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,f2));i32 f3=efd();R(fmt("%s/%s/set_other",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,f3));R(fmt("%s/%s/unset",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,-1));R(fmt("%s/%s/unset_again",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,-1));R(fmt("%s/%s/set_after_unset",pfx,actn(ac[a])),sfd(d,ac[a],ix,0,f3));clean(d,ix);close(f3);}
 {sfd(d,TRIG,ix,0,f);R(fmt("%s/unmask_efd_same_as_trigger",pfx),sfd(d,UNMASK,ix,0,f));RO(fmt("%s/unmask_efd_same_as_trigger/loopback",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));clean(d,ix);}
 /* loopback */
 sfd(d,TRIG,ix,0,f);RO(fmt("%s/loop/1_none",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/2_none_again(masked?)",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/3_bool1",pfx),sbool(d,TRIG,ix,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/4_unmask",pfx),snone(d,UNMASK,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/5_bool1",pfx),sbool(d,TRIG,ix,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/6_bool0",pfx),sbool(d,TRIG,ix,0),"\"fired\":%ld",er(f));RO(fmt("%s/loop/7_unmask_bool1",pfx),sbool(d,UNMASK,ix,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/8_mask_bool1",pfx),sbool(d,MASK,ix,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/9_none_while_masked",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/10_unmask_bool0",pfx),sbool(d,UNMASK,ix,0),"\"fired\":%ld",er(f));RO(fmt("%s/loop/11_none",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/12_unmask",pfx),snone(d,UNMASK,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/loop/13_none",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));u8 z=0xff;RO(fmt("%s/loop/14_bool_ff",pfx),({snone(d,UNMASK,ix,0,1);sirq(d,HS+1,2|TRIG,ix,0,1,&z,1);}),"\"fired\":%ld",er(f));
 clean(d,ix);
 /* unmask via eventfd with loopback */
 sfd(d,TRIG,ix,0,f);R(fmt("%s/virqfd/unmask_set",pfx),sfd(d,UNMASK,ix,0,f2));snone(d,TRIG,ix,0,1);L(fmt("%s/virqfd/1_loopback",pfx),0,0,"\"fired\":%ld",er(f));snone(d,TRIG,ix,0,1);L(fmt("%s/virqfd/2_loopback_masked",pfx),0,0,"\"fired\":%ld",er(f));ew(f2);L(fmt("%s/virqfd/3_unmask_signalled",pfx),0,0,"\"fired\":%ld,\"unmask_counter_left\":%ld",er(f),er(f2));snone(d,TRIG,ix,0,1);L(fmt("%s/virqfd/4_loopback",pfx),0,0,"\"fired\":%ld",er(f));
 i32 m=efd();R(fmt("%s/virqfd/mask_set",pfx),sfd(d,MASK,ix,0,m));ew(f2);tick();ew(m);L(fmt("%s/virqfd/5_mask_signalled",pfx),0,0,"\"mask_counter_left\":%ld",er(m));snone(d,TRIG,ix,0,1);L(fmt("%s/virqfd/6_loopback_masked",pfx),0,0,"\"fired\":%ld",er(f));
 /* preloaded unmask eventfd */
 clean(d,ix);er(f);i32 pre=efd();ew(pre);sfd(d,TRIG,ix,0,f);snone(d,TRIG,ix,0,1);er(f);R(fmt("%s/virqfd/7_set_preloaded_unmask",pfx),sfd(d,UNMASK,ix,0,pre));tick();L(fmt("%s/virqfd/7_left",pfx),0,0,"\"left\":%ld",er(pre));snone(d,TRIG,ix,0,1);L(fmt("%s/virqfd/8_loopback_after_preloaded",pfx),0,0,"\"fired\":%ld",er(f));
 /* close of the unmask eventfd releases the slot? */
 clean(d,ix);sfd(d,TRIG,ix,0,f);i32 cx=efd();sfd(d,UNMASK,ix,0,cx);close(cx);tick();cx=efd();R(fmt("%s/virqfd/9_set_new_after_close_of_old",pfx),sfd(d,UNMASK,ix,0,cx));clean(d,ix);
 /* trigger eventfd closed by user while armed: still ok */
 i32 tc=efd();i32 td=dup(tc);sfd(d,TRIG,ix,0,tc);close(tc);RO(fmt("%s/trigger_fd_closed_dup_alive",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(td));clean(d,ix);
 /* teardown order */
 sfd(d,TRIG,ix,0,f);snone(d,TRIG,ix,0,1);er(f);R(fmt("%s/masked_then_disable",pfx),snone(d,TRIG,ix,0,0));R(fmt("%s/disable_again",pfx),snone(d,TRIG,ix,0,0));R(fmt("%s/rearm",pfx),sfd(d,TRIG,ix,0,f));RO(fmt("%s/rearm/loopback(mask_survives?)",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));RO(fmt("%s/rearm/unmask_loopback",pfx),({snone(d,UNMASK,ix,0,1);snone(d,TRIG,ix,0,1);}),"\"fired\":%ld",er(f));clean(d,ix);
 /* loopback with no trigger, then arm */
 R(fmt("%s/cold_loopback",pfx),snone(d,TRIG,ix,0,1));sfd(d,TRIG,ix,0,f);RO(fmt("%s/cold_loopback_then_arm_loopback",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));clean(d,ix);
 R(fmt("%s/cold_mask",pfx),snone(d,MASK,ix,0,1));sfd(d,TRIG,ix,0,f);RO(fmt("%s/cold_mask_then_arm_loopback",pfx),snone(d,TRIG,ix,0,1),"\"fired\":%ld",er(f));clean(d,ix);
}
static void info(const char*pfx,int d,int plat){
 u32 as[]={0,4,8,16,19,20,24,28,64};
 for(unsigned i=0;i<9;i++){struct{struct vfio_device_info x;u8 pad[64];}b;memset(&b,0xaa,sizeof b);b.x.argsz=as[i];errno=0;int r=ioctl(d,VFIO_DEVICE_GET_INFO,&b);int e=r<0?errno:0;u32*w=(void*)&b;L(fmt("%s/info/argsz_%u",pfx,as[i]),r,e,"\"argsz\":%u,\"flags\":%u,\"regions\":%u,\"irqs\":%u,\"cap\":\"0x%x\",\"pad\":\"0x%x\"",w[0],w[1],w[2],w[3],w[4],w[5]);}
 R(fmt("%s/info/null",pfx),ioctl(d,VFIO_DEVICE_GET_INFO,NULL));R(fmt("%s/region/null",pfx),ioctl(d,VFIO_DEVICE_GET_REGION_INFO,NULL));R(fmt("%s/irq/null",pfx),ioctl(d,VFIO_DEVICE_GET_IRQ_INFO,NULL));
 for(u32 i=0;i<12;i++){struct{struct vfio_region_info x;u8 pad[128];}b;memset(&b,0,sizeof b);b.x.argsz=sizeof b.x;b.x.index=i;errno=0;int r=ioctl(d,VFIO_DEVICE_GET_REGION_INFO,&b);int e=r<0?errno:0;L(fmt("%s/region/%u",pfx,i),r,e,"\"argsz\":%u,\"flags\":%u,\"cap\":%u,\"size\":\"0x%llx\",\"offset\":\"0x%llx\"",b.x.argsz,b.x.flags,b.x.cap_offset,(unsigned long long)b.x.size,(unsigned long long)b.x.offset);}
 for(u32 a=28;a<36;a+=2){struct vfio_region_info x={.argsz=a};R(fmt("%s/region/argsz_%u",pfx,a),ioctl(d,VFIO_DEVICE_GET_REGION_INFO,&x));}{struct vfio_region_info x={.argsz=32,.index=0xffffffff};R(fmt("%s/region/index_max",pfx),ioctl(d,VFIO_DEVICE_GET_REGION_INFO,&x));struct vfio_region_info y={.argsz=32,.flags=0xffffffff};RO(fmt("%s/region/flags_in_ignored",pfx),ioctl(d,VFIO_DEVICE_GET_REGION_INFO,&y),"\"flags\":%u",y.flags);}
 for(u32 i=0;i<8;i++){struct vfio_irq_info x={.argsz=16,.index=i,.flags=0xaaaa,.count=0xbbbb};errno=0;int r=ioctl(d,VFIO_DEVICE_GET_IRQ_INFO,&x);int e=r<0?errno:0;L(fmt("%s/irq/%u",pfx,i),r,e,"\"flags\":%u,\"count\":%u",x.flags,x.count);}
 for(u32 a=0;a<20;a+=(a<12?12:2)){struct vfio_irq_info x={.argsz=a};RO(fmt("%s/irq/argsz_%u",pfx,a),ioctl(d,VFIO_DEVICE_GET_IRQ_INFO,&x),"\"argsz\":%u,\"flags\":%u,\"count\":%u",x.argsz,x.flags,x.count);}
 R(fmt("%s/reset",pfx),ioctl(d,VFIO_DEVICE_RESET));R(fmt("%s/hot_reset_info_null",pfx),ioctl(d,VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,NULL));
 struct{struct vfio_device_feature f;u8 p[64];}ft;memset(&ft,0,sizeof ft);ft.f.argsz=sizeof ft;for(u32 i=0;i<10;i++){ft.f.flags=i|VFIO_DEVICE_FEATURE_PROBE;R(fmt("%s/feature/probe_%u",pfx,i),ioctl(d,VFIO_DEVICE_FEATURE,&ft));}ft.f.argsz=4;R(fmt("%s/feature/argsz4",pfx),ioctl(d,VFIO_DEVICE_FEATURE,&ft));
 R(fmt("%s/ioeventfd_null",pfx),ioctl(d,VFIO_DEVICE_IOEVENTFD,NULL));(void)plat;
 unk(fmt("vfiodev_%s",pfx),d);
}
static u64 roff(int d,u32 i){struct vfio_region_info x={.argsz=sizeof x,.index=i};return ioctl(d,VFIO_DEVICE_GET_REGION_INFO,&x)?0:x.offset;}
static void rw(const char*pfx,int d,u32 reg,u64 size){
 u64 o=roff(d,reg);u8 b[64];memset(b,0,64);int ln[]={0,1,2,3,4,5,8,16};u64 of[]={0,1,2,4,size-4,size-2,size-1,size,size+4};
 for(unsigned i=0;i<9;i++)for(unsigned j=0;j<8;j++){R(fmt("%s/r%u/pread_off0x%llx_len%d",pfx,reg,(unsigned long long)of[i],ln[j]),pread(d,b,ln[j],o+of[i]));}
 R(fmt("%s/r%u/pwrite_past",pfx,reg),pwrite(d,b,4,o+size));R(fmt("%s/r%u/pread_badbuf",pfx,reg),pread(d,BADP,4,o));
 struct{u64 off,len;int pr,fl;const char*n;}mm[]={{0,4096,3,MAP_SHARED,"4k_rw_shared"},{0,4096,1,MAP_SHARED,"4k_r_shared"},{0,4096,3,MAP_PRIVATE,"4k_private"},{0,8192,3,MAP_SHARED,"8k"},{4096,4096,3,MAP_SHARED,"second_page"},{0,512,3,MAP_SHARED,"512b"},{0,4096,5,MAP_SHARED,"4k_rx"}};
 for(unsigned i=0;i<7;i++){void*m=mmap(0,mm[i].len,mm[i].pr,mm[i].fl,d,o+mm[i].off);L(fmt("%s/r%u/mmap_%s",pfx,reg,mm[i].n),m==MAP_FAILED?-1:0,m==MAP_FAILED?errno:0,NULL);if(m!=MAP_FAILED)munmap(m,mm[i].len);}
}
/* ---- sections ---- */
static const char*GB="platform",*GN=PL,*GB2="platform",*GN2=PM;static int have_plat=1;
static void s_container(void){
 int c=open("/dev/vfio/vfio",O_RDWR);R("open",c<0?-1:0);R("api",ioctl(c,VFIO_GET_API_VERSION));R("api_arg1",ioctl(c,VFIO_GET_API_VERSION,1));
 for(int i=0;i<14;i++)R(fmt("ext_%d",i),ioctl(c,VFIO_CHECK_EXTENSION,i));R("ext_9999",ioctl(c,VFIO_CHECK_EXTENSION,9999));R("ext_-1",ioctl(c,VFIO_CHECK_EXTENSION,-1));
 for(int i=0;i<10;i++)R(fmt("set_iommu_no_group/%d",i),ioctl(c,VFIO_SET_IOMMU,i));
 struct vfio_iommu_type1_info in={.argsz=sizeof in};R("get_info_no_group",ioctl(c,VFIO_IOMMU_GET_INFO,&in));struct vfio_iommu_type1_dma_map m={.argsz=sizeof m,.flags=3};R("map_no_group",ioctl(c,VFIO_IOMMU_MAP_DMA,&m));R("map_no_group_null",ioctl(c,VFIO_IOMMU_MAP_DMA,NULL));struct vfio_iommu_type1_dma_unmap u={.argsz=sizeof u};R("unmap_no_group",ioctl(c,VFIO_IOMMU_UNMAP_DMA,&u));R("get_device_fd_on_container",ioctl(c,VFIO_GROUP_GET_DEVICE_FD,"x"));
 unk("container_noiommu",c);
 int ro=open("/dev/vfio/vfio",O_RDONLY);L("open_rdonly",ro<0?-1:0,ro<0?errno:0,NULL);int wo=open("/dev/vfio/vfio",O_WRONLY);L("open_wronly",wo<0?-1:0,wo<0?errno:0,NULL);
}
static void s_group(void){
 char p[64];grp_of(GB,GN,p);L("path",0,0,"\"ok\":%d",p[0]!=0);int g=open(p,O_RDWR);L("open",g<0?-1:0,g<0?errno:0,NULL);
 int g2=open(p,O_RDWR);L("open_twice",g2<0?-1:0,g2<0?errno:0,NULL);g2=open(p,O_RDONLY);L("open_twice_rdonly",g2<0?-1:0,g2<0?errno:0,NULL);
 for(u32 a=0;a<13;a+=(a<6?6:1)){struct vfio_group_status s={.argsz=a,.flags=0xaa};RO(fmt("status/argsz_%u",a),ioctl(g,VFIO_GROUP_GET_STATUS,&s),"\"argsz\":%u,\"flags\":%u",s.argsz,s.flags);}R("status/null",ioctl(g,VFIO_GROUP_GET_STATUS,NULL));
 R("getfd/no_container",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN));R("getfd/no_container_badname",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,"nope"));R("getfd/null",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,NULL));R("unset_container/none",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));
 R("set_container/null",ioctl(g,VFIO_GROUP_SET_CONTAINER,NULL));i32 fd=-1;R("set_container/-1",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));fd=777;R("set_container/closed",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));fd=efd();R("set_container/eventfd",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));fd=open("/dev/null",O_RDWR);R("set_container/devnull",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));fd=g;R("set_container/group_itself",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));
 unk("group_nocont",g);
 int c=open("/dev/vfio/vfio",O_RDWR);fd=c;R("set_container/ok",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));R("set_container/twice",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));int c2=open("/dev/vfio/vfio",O_RDWR);fd=c2;R("set_container/other",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));
 struct vfio_group_status s={.argsz=8};RO("status/with_container",ioctl(g,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);
 R("getfd/before_set_iommu",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN));
 struct vfio_iommu_type1_info in={.argsz=sizeof in};R("get_info/before_set_iommu",ioctl(c,VFIO_IOMMU_GET_INFO,&in));struct vfio_iommu_type1_dma_map m={.argsz=sizeof m,.flags=3};R("map/before_set_iommu",ioctl(c,VFIO_IOMMU_MAP_DMA,&m));
 for(int i=0;i<14;i++)R(fmt("ext_with_group_%d",i),ioctl(c,VFIO_CHECK_EXTENSION,i));
 int ty[]={0,2,4,5,6,7,8,9,99,-1};for(int i=0;i<10;i++)R(fmt("set_iommu/bad_%d",ty[i]),ioctl(c,VFIO_SET_IOMMU,ty[i]));
 R("unset_container/ok_before_iommu",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));R("unset_container/again",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));fd=c;R("set_container/re",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));
 R("set_iommu/type1",ioctl(c,VFIO_SET_IOMMU,1));R("set_iommu/type1_again",ioctl(c,VFIO_SET_IOMMU,1));R("set_iommu/v2_after_v1",ioctl(c,VFIO_SET_IOMMU,3));R("set_iommu/bad_after",ioctl(c,VFIO_SET_IOMMU,99));
 for(int i=0;i<14;i++)R(fmt("ext_with_iommu_%d",i),ioctl(c,VFIO_CHECK_EXTENSION,i));
 RO("status/with_iommu",ioctl(g,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);
 R("getfd/badname",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,"nope"));R("getfd/empty",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,""));R("getfd/prefix",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,have_plat?"9010000":"0000:00"));R("getfd/name_of_other_group",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN2));R("getfd/null2",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,NULL));char lg[9000];memset(lg,'a',8999);lg[8999]=0;R("getfd/too_long",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,lg));R("getfd/badptr",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,BADP));
 int d=RFD("getfd/ok",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN));L("getfd/cloexec",0,0,"\"fd_flags\":%d",fcntl(d,F_GETFD));
 int d2=RFD("getfd/second",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN));R("unset_container/device_open",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));fd=c2;R("set_container/device_open",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));
 { /* IRQ state shared by two fds of the same device */ i32 e=efd();R("two_fds/set_trigger_on_first",sfd(d,TRIG,0,0,e));RO("two_fds/loopback_on_second",snone(d2,TRIG,0,0,1),"\"fired\":%ld",er(e));close(d);RO("two_fds/after_close_first_loopback",({snone(d2,UNMASK,0,0,1);snone(d2,TRIG,0,0,1);}),"\"fired\":%ld",er(e));d=ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN);}
 unk("group",g);unk("container",c);
 close(d2);R("unset_container/one_still_open",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));
 close(g);g=open(p,O_RDWR);L("group/reopen_while_device_open",g<0?-1:0,g<0?errno:0,NULL);R("device_after_group_close/irq_loopback",snone(d,TRIG,0,0,1));struct vfio_device_info di={.argsz=sizeof di};R("device_after_group_close/info",ioctl(d,VFIO_DEVICE_GET_INFO,&di));
 close(d);g=open(p,O_RDWR);L("group/reopen_after_device_closed",g<0?-1:0,g<0?errno:0,NULL);RO("group/reopen_status",ioctl(g,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);R("container_after_group_gone/get_info",ioctl(c,VFIO_IOMMU_GET_INFO,&in));
 fd=c;R("group/set_container_again_same_container",ioctl(g,VFIO_GROUP_SET_CONTAINER,&fd));R("group/get_info",ioctl(c,VFIO_IOMMU_GET_INFO,&in));R("group/set_iommu_again",ioctl(c,VFIO_SET_IOMMU,3));
 /* second group into the same container */
 char p2[64];grp_of(GB2,GN2,p2);int gg=open(p2,O_RDWR);fd=c;R("group2/same_container",ioctl(gg,VFIO_GROUP_SET_CONTAINER,&fd));RO("group2/status",ioctl(gg,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);R("group2/set_iommu_again",ioctl(c,VFIO_SET_IOMMU,3));int dd=RFD("group2/getfd",ioctl(gg,VFIO_GROUP_GET_DEVICE_FD,GN2));close(dd);close(c);R("container_fd_closed/getfd",({int z=ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN);if(z>=0)close(z);z>=0?0:z;}));
 close(g);close(gg);
 for(int i=0;i<3;i++){char q[64];char nm[][16]={EDU,E1K,TST};grp_of("pci",nm[i],q);int z=open(q,O_RDWR);RO(fmt("pci_group_status/%d",i),ioctl(z,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);close(z);}
 int ro=open(p,O_RDONLY);L("open_rdonly",ro<0?-1:0,ro<0?errno:0,NULL);close(ro);int no=open("/dev/vfio/99",O_RDWR);L("open_nonexistent",no<0?-1:0,no<0?errno:0,NULL);
 g=open(p,O_RDWR);int gd=dup(g);close(g);RO("dup_works",ioctl(gd,VFIO_GROUP_GET_STATUS,&s),"\"flags\":%u",s.flags);
}
static void s_dma(int ver){
 struct dev x;char p[64];grp_of(GB,GN,p);x.c=open("/dev/vfio/vfio",O_RDWR);x.g=open(p,O_RDWR);ioctl(x.g,VFIO_GROUP_SET_CONTAINER,&x.c);R(fmt("v%d/set_iommu",ver),ioctl(x.c,VFIO_SET_IOMMU,ver));
 for(u32 a=0;a<200;a=(a==0?8:a==8?15:a<24?a+1:a*2)){u8 b[512];memset(b,0,512);struct vfio_iommu_type1_info*in=(void*)b;in->argsz=a;errno=0;int r=ioctl(x.c,VFIO_IOMMU_GET_INFO,b);L(fmt("v%d/info/argsz_%u",ver,a),r,r?errno:0,"\"argsz\":%u,\"flags\":%u,\"pgsizes\":\"0x%llx\",\"cap_offset\":%u",in->argsz,in->flags,(unsigned long long)in->iova_pgsizes,in->cap_offset);}
 {u8 b[512];memset(b,0,512);struct vfio_iommu_type1_info*in=(void*)b;in->argsz=512;ioctl(x.c,VFIO_IOMMU_GET_INFO,b);u32 o=in->cap_offset;while(o&&o<500){struct vfio_info_cap_header*h=(void*)(b+o);char z[256]="";u32 end=h->next?h->next:in->argsz;for(u32 k=o;k<end&&k<o+100;k+=4)sprintf(z+strlen(z),"%08x ",*(u32*)(b+k));L(fmt("v%d/info/cap_id_%u_v%u",ver,h->id,h->version),0,0,"\"at\":%u,\"words\":\"%s\"",o,z);o=h->next;}}
 R(fmt("v%d/info/null",ver),ioctl(x.c,VFIO_IOMMU_GET_INFO,NULL));
 char*mem=mmap(0,1<<20,PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);char*ro=mmap(0,4096,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
#define MAPX(n,az,fl,va,io,sz) ({struct vfio_iommu_type1_dma_map m={.argsz=az,.flags=fl,.vaddr=(u64)(uintptr_t)(va),.iova=io,.size=sz};R(fmt("v%d/map/%s",ver,n),ioctl(x.c,VFIO_IOMMU_MAP_DMA,&m));})
#define UNM(n,az,fl,io,sz) ({struct vfio_iommu_type1_dma_unmap m={.argsz=az,.flags=fl,.iova=io,.size=sz};RO(fmt("v%d/unmap/%s",ver,n),ioctl(x.c,VFIO_IOMMU_UNMAP_DMA,&m),"\"size\":\"0x%llx\"",(unsigned long long)m.size);})
 R(fmt("v%d/map/null",ver),ioctl(x.c,VFIO_IOMMU_MAP_DMA,NULL));MAPX("argsz31",31,3,mem,0x10000,0x1000);MAPX("argsz0",0,3,mem,0x10000,0x1000);MAPX("noflags",32,0,mem,0x10000,0x1000);MAPX("flag_bit3",32,3|8,mem,0x10000,0x1000);MAPX("flag_vaddr_only",32,4,mem,0x10000,0x1000);MAPX("size0",32,3,mem,0x10000,0);MAPX("size_unaligned",32,3,mem,0x10000,0x1001);MAPX("size_small",32,3,mem,0x10000,0x800);MAPX("iova_unaligned",32,3,mem,0x10010,0x1000);MAPX("vaddr_unaligned",32,3,mem+0x10,0x10000,0x1000);MAPX("vaddr_unmapped",32,3,(void*)0x10000,0x10000,0x1000);MAPX("vaddr_ro_write",32,3,ro,0x10000,0x1000);MAPX("vaddr_ro_read",32,1,ro,0x90000,0x1000);MAPX("iova_wrap",32,3,mem,0xfffffffffffff000ull,0x2000);MAPX("iova_too_big",32,3,mem,1ull<<60,0x1000);MAPX("iova_beyond_aperture_48",32,3,mem,1ull<<48,0x1000);MAPX("msi_reserved_0x8000000",32,3,mem,0x8000000,0x1000);MAPX("vaddr_wrap",32,3,(void*)0xfffffffffffff000ull,0x10000,0x2000);
 MAPX("ok_64k",32,3,mem,0x10000,0x10000);MAPX("same_again",32,3,mem,0x10000,0x10000);MAPX("overlap_tail",32,3,mem,0x18000,0x10000);MAPX("overlap_head",32,3,mem,0x8000,0x10000);MAPX("contained",32,3,mem,0x12000,0x1000);MAPX("containing",32,3,mem,0x0,0x40000);MAPX("adjacent",32,3,mem+0x10000,0x20000,0x10000);MAPX("iova_0",32,1,mem,0,0x1000);MAPX("write_only",32,2,mem,0x50000,0x1000);MAPX("alias_same_vaddr",32,3,mem,0x60000,0x1000);
 R(fmt("v%d/unmap/null",ver),ioctl(x.c,VFIO_IOMMU_UNMAP_DMA,NULL));UNM("argsz23",23,0,0x10000,0x10000);UNM("flags_bit4",24,16,0x10000,0x10000);UNM("size0",24,0,0x10000,0);UNM("unaligned_iova",24,0,0x10010,0x1000);UNM("unaligned_size",24,0,0x10000,0x10);UNM("nothing_there",24,0,0x800000,0x1000);UNM("bisect_middle",24,0,0x14000,0x1000);UNM("bisect_head",24,0,0x10000,0x8000);UNM("remap_state_probe",24,0,0x18000,0x8000);UNM("whole",24,0,0x10000,0x10000);UNM("whole_again",24,0,0x10000,0x10000);UNM("range_covering_several",24,0,0x20000,0x50000);UNM("wrap",24,0,0xfffffffffffff000ull,0x2000);UNM("huge",24,0,0,0xfffffffffffff000ull);MAPX("refill",32,3,mem,0x10000,0x4000);MAPX("refill2",32,3,mem,0x30000,0x4000);UNM("all_flag_with_size",24,2,0,0x1000);UNM("all_flag",24,2,0,0);UNM("all_flag_empty",24,2,0,0);UNM("vaddr_flag",24,4,0x10000,0x4000);UNM("all_and_dirty",24,3,0,0);
 struct vfio_iommu_type1_dirty_bitmap db={.argsz=sizeof db,.flags=0};R(fmt("v%d/dirty/noflags",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));db.flags=1;R(fmt("v%d/dirty/start",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));db.flags=1;R(fmt("v%d/dirty/start_again",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));db.flags=2;R(fmt("v%d/dirty/stop",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));db.flags=3;R(fmt("v%d/dirty/both",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));db.flags=8;R(fmt("v%d/dirty/bit3",ver),ioctl(x.c,VFIO_IOMMU_DIRTY_PAGES,&db));
 R(fmt("v%d/iommu_enable",ver),ioctl(x.c,VFIO_IOMMU_ENABLE));R(fmt("v%d/iommu_disable",ver),ioctl(x.c,VFIO_IOMMU_DISABLE));
 /* limit: RLIMIT skipped (root). maps survive group detach? */
 MAPX("before_unset",32,3,mem,0x10000,0x1000);R(fmt("v%d/unset_container_with_maps",ver),ioctl(x.g,VFIO_GROUP_UNSET_CONTAINER));R(fmt("v%d/map_after_unset",ver),({struct vfio_iommu_type1_dma_map m={.argsz=32,.flags=3,.vaddr=(u64)(uintptr_t)mem,.iova=0x20000,.size=0x1000};ioctl(x.c,VFIO_IOMMU_MAP_DMA,&m);}));
}
static void s_kvmvfio_group(void){
 char p[64],p2[64];grp_of(GB,GN,p);grp_of(GB2,GN2,p2);int v=mkvm(),v2=mkvm(),k,k2;crdev(v,4,0,&k);crdev(v2,4,0,&k2);
 i32 g=open(p,O_RDWR),g2=open(p2,O_RDWR),c=open("/dev/vfio/vfio",O_RDWR);
 R("add/group_without_container",SETA(k,1,1,&g));R("add/same_again",SETA(k,1,1,&g));i32 gd=dup(g);R("add/dup_fd_of_same_file",SETA(k,1,1,&gd));R("add/other_group",SETA(k,1,1,&g2));R("add/container_fd",SETA(k,1,1,&c));R("add/same_group_in_other_vm",SETA(k2,1,1,&g));R("del/in_other_vm",SETA(k2,1,2,&g));R("del/unknown_in_other_vm",SETA(k2,1,2,&g2));
 R("attr3_spapr",SETA(k,1,3,&g));R("attr0",SETA(k,1,0,&g));R("attr4",SETA(k,1,4,&g));R("group0_attr1",SETA(k,0,1,&g));R("group2_attr1",SETA(k,2,1,&g));R("get",GETA(k,1,1,&g));
 R("del/ok_via_dup",SETA(k,1,2,&gd));R("del/again",SETA(k,1,2,&g));R("del/other",SETA(k,1,2,&g2));R("add/after_del",SETA(k,1,1,&g));
 i32 cf=c;R("set_container_after_add",ioctl(g,VFIO_GROUP_SET_CONTAINER,&cf));R("set_iommu",ioctl(c,VFIO_SET_IOMMU,3));i32 d=RFD("getfd",ioctl(g,VFIO_GROUP_GET_DEVICE_FD,GN));R("add/device_fd",SETA(k,1,1,&d));R("del/device_fd",SETA(k,1,2,&d));R("del/while_device_open",SETA(k,1,2,&g));R("add/while_device_open",SETA(k,1,1,&g));
 R("unset_container_device_open",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));close(d);R("unset_container_in_kvm",ioctl(g,VFIO_GROUP_UNSET_CONTAINER));
 /* group fd closed while kvm holds the file */
 close(g);close(gd);int r=open(p,O_RDWR);L("reopen_group_held_by_kvm",r<0?-1:0,r<0?errno:0,NULL);close(k);r=open(p,O_RDWR);L("reopen_after_kvmvfio_fd_closed_vm_alive",r<0?-1:0,r<0?errno:0,NULL);if(r>=0)close(r);R("create_again_after_close",crdev(v,4,0,&k));if(k>=0)close(k);close(v);tick();r=open(p,O_RDWR);L("reopen_after_vm_closed",r<0?-1:0,r<0?errno:0,NULL);
}
static volatile u32*rtc;static void rtc_raise(void){rtc[4]=1;for(int i=0;i<5;i++){rtc[1]=rtc[0];if(rtc[5]&1)return;}L("INTERNAL-rtc-raise",-1,0,NULL);}static void rtc_lower(void){rtc[7]=1;}
static void s_rtc_irq(void){
 struct dev x=opendev("platform",PL);int d=x.d;rtc=mmap(0,4096,3,MAP_SHARED,d,roff(d,0));if(rtc==MAP_FAILED){L("mmap",-1,errno,NULL);return;}
 i32 t=efd(),u=efd(),m=efd(),n2=-1;L("regs",0,0,"\"periphid0\":%u,\"ris\":%u",rtc[0xfe0/4]&0xff,rtc[5]);
 R("1_set_trigger",sfd(d,TRIG,0,0,t));rtc_raise();L("2_raised",0,0,"\"fired\":%ld,\"ris\":%u",er(t),rtc[5]);L("2_stays_masked",0,0,"\"fired\":%ld",er(t));R("3_unmask_while_high",snone(d,UNMASK,0,0,1));L("3_refires",0,0,"\"fired\":%ld",er(t));rtc_lower();L("4_lowered",0,0,"\"fired\":%ld",er(t));R("5_unmask_while_low",snone(d,UNMASK,0,0,1));L("5_state",0,0,"\"fired\":%ld",er(t));rtc_raise();L("6_raised",0,0,"\"fired\":%ld",er(t));rtc_lower();rtc_raise();L("7_lower_raise_while_masked",0,0,"\"fired\":%ld",er(t));rtc_lower();R("8_unmask",snone(d,UNMASK,0,0,1));L("8_after_lower_unmask(no_latch?)",0,0,"\"fired\":%ld",er(t));
 R("9_set_unmask_efd",sfd(d,UNMASK,0,0,u));rtc_raise();L("9_raised",0,0,"\"fired\":%ld",er(t));ew(u);L("10_unmask_efd_while_high",0,0,"\"fired\":%ld,\"u_left\":%ld",er(t),er(u));rtc_lower();ew(u);L("11_unmask_efd_low",0,0,"\"fired\":%ld",er(t));ew(u);ew(u);L("11b_unmask_efd_when_unmasked",0,0,"\"fired\":%ld",er(t));
 R("12_set_mask_efd",sfd(d,MASK,0,0,m));ew(m);tick();rtc_raise();L("12_raise_after_mask_efd",0,0,"\"fired\":%ld",er(t));ew(u);L("13_unmask_efd",0,0,"\"fired\":%ld",er(t));rtc_lower();ew(u);tick();
 R("14_mask_ioctl",snone(d,MASK,0,0,1));R("14_mask_twice",snone(d,MASK,0,0,1));rtc_raise();L("14_raise_masked",0,0,"\"fired\":%ld",er(t));R("15_one_unmask",snone(d,UNMASK,0,0,1));L("15_fires_after_one_unmask",0,0,"\"fired\":%ld",er(t));rtc_lower();snone(d,UNMASK,0,0,1);
 R("16_unmask_when_unmasked",snone(d,UNMASK,0,0,1));rtc_raise();L("16_raise",0,0,"\"fired\":%ld",er(t));R("17_trigger_replaced_while_masked_high",({n2=efd();sfd(d,TRIG,0,0,n2);}));L("17",0,0,"\"old\":%ld,\"new\":%ld",er(t),er(n2));R("18_unmask",snone(d,UNMASK,0,0,1));L("18",0,0,"\"old\":%ld,\"new\":%ld",er(t),er(n2));rtc_lower();snone(d,UNMASK,0,0,1);
 R("19_disable",snone(d,TRIG,0,0,0));rtc_raise();L("19_raise_disabled",0,0,"\"fired\":%ld",er(n2));R("20_arm_while_high",sfd(d,TRIG,0,0,t));L("20_fires",0,0,"\"fired\":%ld",er(t));R("21_disable_masked",sfd(d,TRIG,0,0,-1));R("21_rearm",sfd(d,TRIG,0,0,t));L("21_rearm_high_masked",0,0,"\"fired\":%ld",er(t));R("22_unmask",snone(d,UNMASK,0,0,1));L("22",0,0,"\"fired\":%ld",er(t));rtc_lower();snone(d,UNMASK,0,0,1);
 R("23_loopback_low",snone(d,TRIG,0,0,1));L("23",0,0,"\"fired\":%ld",er(t));rtc_raise();L("24_raise_after_loopback(masked)",0,0,"\"fired\":%ld",er(t));R("25_unmask",snone(d,UNMASK,0,0,1));L("25",0,0,"\"fired\":%ld",er(t));
 close(d);munmap((void*)rtc,4096);d=x.d=ioctl(x.g,VFIO_GROUP_GET_DEVICE_FD,PL);rtc=mmap(0,4096,3,MAP_SHARED,d,roff(d,0));L("26_reopened_line_high",0,0,"\"ris\":%u",rtc[5]);R("26_arm",sfd(d,TRIG,0,0,t));L("26_fires(mask_state_reset?)",0,0,"\"fired\":%ld",er(t));rtc_lower();R("27_reset_ioctl",ioctl(d,VFIO_DEVICE_RESET));L("27",0,0,"\"fired\":%ld",er(t));
 closedev(&x);
}
static volatile u32*gp;
static void s_multi_irq(void){ /* pl061: level irq source wired to an EDGE-configured SPI */
 struct dev x=opendev("platform",PM);int d=x.d;gp=mmap(0,4096,3,MAP_SHARED,d,roff(d,0));if(gp==MAP_FAILED){L("mmap",-1,errno,NULL);return;}
 gp[0x410/4]=0;gp[0x404/4]=0xff;gp[0x40c/4]=0;i32 t=efd();L("regs",0,0,"\"periphid0\":%u,\"ris\":%u",gp[0xfe0/4]&0xff,gp[0x414/4]);
 R("1_set_trigger",sfd(d,TRIG,0,0,t));gp[0x410/4]=1;L("2_edge",0,0,"\"fired\":%ld,\"mis\":%u",er(t),gp[0x418/4]);gp[0x410/4]=0;L("3_lower",0,0,"\"fired\":%ld",er(t));gp[0x410/4]=1;gp[0x410/4]=0;L("4_pulse",0,0,"\"fired\":%ld",er(t));for(int i=0;i<3;i++){gp[0x410/4]=1;gp[0x410/4]=0;usleep(3000);}L("5_three_pulses",0,0,"\"fired\":%ld",er(t));
 R("6_mask",snone(d,MASK,0,0,1));R("6_unmask",snone(d,UNMASK,0,0,1));R("7_loopback",snone(d,TRIG,0,0,1));L("7",0,0,"\"fired\":%ld",er(t));R("7_loopback2",snone(d,TRIG,0,0,1));L("7b",0,0,"\"fired\":%ld",er(t));R("8_disable",snone(d,TRIG,0,0,0));gp[0x410/4]=1;gp[0x410/4]=0;tick();R("9_rearm",sfd(d,TRIG,0,0,t));L("9_edge_latched_while_disabled?",0,0,"\"fired\":%ld",er(t));
 closedev(&x);
}
static volatile u32*ed;
static void s_edu(void){
 struct dev x=opendev("pci",EDU);int d=x.d;u64 co=roff(d,7);u32 cmd=0;pread(d,&cmd,4,co+4);L("cfg/command",0,0,"\"val\":\"0x%x\"",cmd);cmd|=6;R("cfg/write_command",pwrite(d,&cmd,2,co+4));u32 id=0;pread(d,&id,4,co);L("cfg/id",0,0,"\"val\":\"0x%x\"",id);
 ed=mmap(0,4096,3,MAP_SHARED,d,roff(d,0));if(ed==MAP_FAILED){L("mmap",-1,errno,NULL);return;}L("edu_id",0,0,"\"val\":\"0x%x\"",ed[0]);
 i32 t=efd(),u=efd();R("1_set_intx_trigger",sfd(d,TRIG,0,0,t));ed[0x60/4]=1;L("2_raise",0,0,"\"fired\":%ld,\"status\":%u",er(t),ed[0x24/4]);u32 st=0;pread(d,&st,4,co+4);L("2_cfg_status_cmd(intx_disable_bit_visible?)",0,0,"\"val\":\"0x%x\"",st);ed[0x60/4]=2;L("3_raise_again_automasked",0,0,"\"fired\":%ld",er(t));R("4_unmask_while_high",snone(d,UNMASK,0,0,1));L("4_refires",0,0,"\"fired\":%ld",er(t));ed[0x64/4]=3;L("5_acked",0,0,"\"fired\":%ld",er(t));R("6_unmask_low",snone(d,UNMASK,0,0,1));L("6",0,0,"\"fired\":%ld",er(t));
 R("7_unmask_efd",sfd(d,UNMASK,0,0,u));ed[0x60/4]=1;L("7_raise",0,0,"\"fired\":%ld",er(t));ew(u);L("8_unmask_efd_high",0,0,"\"fired\":%ld,\"u_left\":%ld",er(t),er(u));ed[0x64/4]=1;ew(u);L("9_unmask_efd_low",0,0,"\"fired\":%ld",er(t));R("10_mask",snone(d,MASK,0,0,1));ed[0x60/4]=1;L("10_raise_masked",0,0,"\"fired\":%ld",er(t));R("11_unmask",snone(d,UNMASK,0,0,1));L("11",0,0,"\"fired\":%ld",er(t));ed[0x64/4]=1;snone(d,UNMASK,0,0,1);
 R("12_loopback",snone(d,TRIG,0,0,1));L("12",0,0,"\"fired\":%ld",er(t));R("12b_loopback_again",snone(d,TRIG,0,0,1));L("12b(not_automasked_on_pci)",0,0,"\"fired\":%ld",er(t));R("13_msi_while_intx",sfd(d,TRIG,1,0,t));R("14_disable_intx",snone(d,TRIG,0,0,0));i32 ms=efd();R("15_msi_set",sfd(d,TRIG,1,0,ms));ed[0x60/4]=4;L("15_raise_msi",0,0,"\"fired\":%ld",er(ms));ed[0x60/4]=4;L("15b_raise_again_no_automask",0,0,"\"fired\":%ld",er(ms));ed[0x64/4]=4;R("16_msi_mask",snone(d,MASK,1,0,1));R("16_msi_loopback",snone(d,TRIG,1,0,1));L("16",0,0,"\"fired\":%ld",er(ms));R("17_intx_while_msi",sfd(d,TRIG,0,0,t));R("17_msix_while_msi",sfd(d,TRIG,2,0,t));R("18_msi_fd_-1",sfd(d,TRIG,1,0,-1));ed[0x60/4]=4;L("18",0,0,"\"fired\":%ld",er(ms));ed[0x64/4]=4;R("19_msi_disable",snone(d,TRIG,1,0,0));R("19_msi_disable_again",snone(d,TRIG,1,0,0));
 for(int i=3;i<5;i++){R(fmt("idx%d/set",i),sfd(d,TRIG,i,0,ms));RO(fmt("idx%d/loopback",i),snone(d,TRIG,i,0,1),"\"fired\":%ld",er(ms));R(fmt("idx%d/mask",i),snone(d,MASK,i,0,1));R(fmt("idx%d/disable",i),sfd(d,TRIG,i,0,-1));}
 closedev(&x);
}
static void s_e1k(void){struct dev x=opendev("pci",E1K);int d=x.d;u64 co=roff(d,7);u16_:;unsigned short cmd=6;pwrite(d,&cmd,2,co+4);i32 f[5];for(int i=0;i<5;i++)f[i]=efd();
 R("msix/set_5",sirq(d,HS+20,4|TRIG,2,0,5,f,20));for(int i=0;i<5;i++){R(fmt("msix/loop_%d",i),snone(d,TRIG,2,i,1));L(fmt("msix/loop_%d_counts",i),0,0,"\"c\":[%ld,%ld,%ld,%ld,%ld]",er(f[0]),er(f[1]),er(f[2]),er(f[3]),er(f[4]));}R("msix/set_6",sirq(d,HS+24,4|TRIG,2,0,6,f,24));R("msix/sub_range_2_2",sirq(d,HS+8,4|TRIG,2,2,2,f,8));u8 bl[5]={1,0,1,0,1};R("msix/bool_10101",sirq(d,HS+5,2|TRIG,2,0,5,bl,5));L("msix/bool_counts",0,0,"\"c\":[%ld,%ld,%ld,%ld,%ld]",er(f[0]),er(f[1]),er(f[2]),er(f[3]),er(f[4]));i32 g[5]={f[0],-1,777,f[3],f[4]};R("msix/partial_bad_fd",sirq(d,HS+20,4|TRIG,2,0,5,g,20));for(int i=0;i<5;i++)snone(d,TRIG,2,i,1);L("msix/after_partial_counts",0,0,"\"c\":[%ld,%ld,%ld,%ld,%ld]",er(f[0]),er(f[1]),er(f[2]),er(f[3]),er(f[4]));R("msix/mask_0",snone(d,MASK,2,0,1));R("msix/disable_start1_c0",snone(d,TRIG,2,1,0));R("msix/disable",snone(d,TRIG,2,0,0));R("msix/loop_cold",snone(d,TRIG,2,0,1));R("msix/set_start1_first",sirq(d,HS+4,4|TRIG,2,1,1,f,4));R("msix/disable2",snone(d,TRIG,2,0,0));if(0)goto u16_;closedev(&x);}
static void s_info(void){struct dev x;if(have_plat){x=opendev("platform",PL);info("rtc",x.d,1);rw("rtc",x.d,0,0x1000);rw("rtc_pastregion",x.d,1,0x1000);closedev(&x);x=opendev("platform",PM);info("multi",x.d,1);rw("multi",x.d,1,0x200);closedev(&x);}x=opendev("pci",EDU);info("edu",x.d,0);closedev(&x);x=opendev("pci",E1K);info("e1000e",x.d,0);closedev(&x);x=opendev("pci",TST);info("testdev",x.d,0);closedev(&x);}
static void s_matrix(void){struct dev x;x=opendev("platform",PL);edge("rtc0/edge",x.d,0,1);matrix("rtc0",x.d,0,1);closedev(&x);x=opendev("platform",PM);edge("multi0_edgeirq/edge",x.d,0,3);edge("multi1_level/edge",x.d,1,3);matrix("multi0_edgeirq",x.d,0,3);matrix("multi1_level",x.d,1,3);closedev(&x);}
static void s_matrix_pci(void){struct dev x=opendev("pci",E1K);edge("intx/edge",x.d,0,5);matrix("intx",x.d,0,1);edge("msi/edge",x.d,1,5);matrix("msi",x.d,1,1);edge("msix/edge",x.d,2,5);matrix("msix",x.d,2,5);edge("err/edge",x.d,3,5);matrix("err",x.d,3,1);edge("req/edge",x.d,4,5);matrix("req",x.d,4,1);closedev(&x);}
static void s_e2e(void){ /* real device -> vfio trigger eventfd -> KVM irqfd -> guest IAR/EOI -> resamplefd = vfio unmask eventfd */
 int v=e2e_boot();struct dev x=opendev("platform",PL);int d=x.d;rtc=mmap(0,4096,3,MAP_SHARED,d,roff(d,0));i32 t=efd(),u=efd();
#define ST(n) L(n,0,0,"\"t\":%ld,\"u\":%ld,\"isr\":%ld,\"ris\":%u",er(t),er(u),e2e_isr(),rtc[5])
 R("0_irqfd",irqfd(v,t,9,2,u));R("0_trigger",sfd(d,TRIG,0,0,t));R("0_unmask_efd",sfd(d,UNMASK,0,0,u));ST("0");rtc_raise();ST("1_raised");long a=e2e_iar();L("2_iar",a,0,NULL);ST("2_acked");e2e_eoi(a);ST("3_eoi_device_still_high(refire)");a=e2e_iar();L("4_iar",a,0,NULL);rtc_lower();ST("4_device_lowered_while_active");e2e_eoi(a);ST("5_eoi");a=e2e_iar();L("5_iar",a,0,NULL);rtc_raise();ST("6_raise_again");a=e2e_iar();rtc_lower();e2e_eoi(a);L("6_iar",a,0,NULL);ST("7_done");
 /* device lowered before guest acks */ rtc_raise();ST("8_raised");rtc_lower();ST("8_lowered_before_ack(stays_pending?)");a=e2e_iar();L("8_iar",a,0,NULL);if(a<1020)e2e_eoi(a);ST("9_eoi");
 /* irqfd deassigned while line masked: who unmasks? */ rtc_raise();tick();R("10_irqfd_deassign",irqfd(v,t,9,1,0));ST("10_after_deassign");rtc_lower();R("11_reassign",irqfd(v,t,9,2,u));rtc_raise();ST("11_raise(masked_forever?)");R("12_manual_unmask",snone(d,UNMASK,0,0,1));ST("12");a=e2e_iar();rtc_lower();if(a<1020)e2e_eoi(a);ST("13");
 /* order: vfio trigger first, device high, then irqfd assigned (counter pre-pending) */ irqfd(v,t,9,1,0);rtc_raise();tick();R("14_irqfd_assign_with_pending_counter",irqfd(v,t,9,2,u));{u64 z;L("14_counter_peek",0,0,"\"t\":%ld,\"isr\":%ld",read(t,&z,8)==8?(long)z:0,({tick();e2e_isr();}));}a=e2e_iar();L("14_iar",a,0,NULL);rtc_lower();if(a<1020)e2e_eoi(a);ST("15");
 /* loopback through vfio into KVM */ R("16_loopback",snone(d,TRIG,0,0,1));ST("16");a=e2e_iar();L("16_iar",a,0,NULL);if(a<1020)e2e_eoi(a);ST("17");
 /* guest irq configured as edge by mistake: no resample -> stuck masked */ e2e_cfg(2u<<18);rtc_raise();ST("18_edge_cfg_raise");a=e2e_iar();L("18_iar",a,0,NULL);if(a<1020)e2e_eoi(a);ST("18_eoi_edge(no_unmask?)");rtc_lower();rtc_raise();ST("19_raise_again");rtc_lower();
 closedev(&x);
}
static void sub(const char*n,void(*f)(void)){static char nm[64];sprintf(nm,"vfio-%s",n);if(!wanted(nm))return;fflush(stdout);pid_t p=fork();if(!p){SEC=nm;alarm(150);f();_exit(0);}int st=0;waitpid(p,&st,0);if(st){L(fmt("SECTION-DIED-%s",n),st,0,NULL);}}
static void s_dma1(void){s_dma(1);}static void s_dma3(void){s_dma(3);}
void sec_vfio(void){alarm(500);char z[64];if(grp_of("platform",PL,z)||access(z,F_OK)){have_plat=0;GB=GB2="pci";GN=EDU;GN2=E1K;}L("have_platform",have_plat,0,NULL);sub("container",s_container);sub("group",s_group);sub("dma-type1",s_dma1);sub("dma-type1v2",s_dma3);sub("kvm",s_kvmvfio_group);sub("info",s_info);if(have_plat)sub("rtcirq",s_rtc_irq);if(have_plat)sub("multiirq",s_multi_irq);if(have_plat)sub("e2e",s_e2e);sub("edu",s_edu);sub("e1000e",s_e1k);if(have_plat)sub("platmatrix",s_matrix);sub("pcimatrix",s_matrix_pci);}
#else
void sec_vfio(void){}
#endif
