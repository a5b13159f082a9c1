// probe [SECTION ...]: asks the kernel's KVM and VFIO about 7,700 questions; one JSON line each. See ../README.md
#include "common.h"
const char*SEC="";
void L(const char*name,long ret,int err,const char*outf,...){
 char o[8192]="";if(outf){va_list a;va_start(a,outf);vsnprintf(o,sizeof o,outf,a);va_end(a);}
 const char*e=err?strerrorname_np(err):"0";char eb[16];if(!e){snprintf(eb,16,"%d",err);e=eb;}
 printf("{\"case\": \"%s/%s\", \"ret\": %ld, \"errno\": \"%s\", \"out\": {%s}}\n",SEC,name,ret,e,o);fflush(stdout);
}
static char**asked;
int wanted(const char*name){
 if(!*asked)return 1;
 for(char**a=asked;*a;a++){size_t n=strlen(*a);if(!strcmp(*a,name)||(!strncmp(*a,name,n)&&name[n]=='-')||(!strcmp(name,"vfio")&&!strncmp(*a,"vfio-",5)))return 1;}
 return 0;
}
static void run(const char*name,void(*f)(void)){
 if(!wanted(name))return;
 fflush(stdout);pid_t p=fork();if(!p){SEC=name;alarm(120);f();_exit(0);}
 int st=0;waitpid(p,&st,0);if(st){SEC=name;L("SECTION-DIED",st,0,"\"signal\":%d",WTERMSIG(st));}
}
int main(int c,char**argv){(void)c;asked=argv+1;setvbuf(stdout,0,_IOLBF,0);
 struct utsname u;uname(&u);SEC="meta";L("uname",0,0,"\"release\":\"%s\",\"machine\":\"%s\"",u.release,u.machine);
 run("kvm",sec_kvm);run("mem",sec_mem);run("irqfd",sec_irqfd);run("kvmvfio",sec_kvmvfio);
#if defined(__aarch64__) || defined(PROBE_ARM)
 run("arm",sec_arm);run("vgic",sec_vgic);run("guest",sec_guest);run("vfio",sec_vfio);
#endif
 return 0;}
