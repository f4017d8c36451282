import sys,time,os
sys.path.insert(0,'tests'); sys.path.insert(0,'tests/actions')
from pathlib import Path
from yard import *
import cProfile,pstats
top=Path('/tmp/y')
with yard_at(top,'--base',sys.argv[1],names=('a','b')) as y:
    y.ok('mount')
    for w in (('--no-probe',),('--quick',),()):
        best=9
        for _ in range(4):
            t=time.process_time(); r=y.run('--json','verify',*w); best=min(best,time.process_time()-t)
        print(w,round(best*1000),'ms CPU',r.code)
    p=cProfile.Profile(); p.enable(); y.run('--json','verify','--no-probe'); p.disable()
    pstats.Stats(p).sort_stats('tottime').print_stats(14)
